"""Files that a process keeps for its next start: read without waiting, and replaced as a whole.

A disk is a help here and never a condition: whatever goes wrong with it is a :class:`CacheError`, for a warning.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile

__all__ = ["CacheError", "read_kept", "replace_kept"]


class CacheError(Exception):
    """What was kept cannot be used, or nothing can be kept; the text says why."""


def read_kept(path: str, most: int) -> bytes | None:
    """The first ``most`` bytes of ``path``; ``None`` where there is nothing."""
    # Without waiting: what is there may be a pipe. And no link, which is somebody's word that another file is this one.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or (hasattr(os, "geteuid") and found.st_uid != os.geteuid()):
                raise CacheError(f"{path} is no file of this user's: it is not used")
            if hasattr(os, "geteuid") and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise CacheError(f"{path} may be written by others: it is not used")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(most)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CacheError(f"{path} is a link, and no file of this user's: it is not used") from None
        raise CacheError(f"{path} cannot be read: {error.strerror or error}") from None


def replace_kept(path: str, *parts: bytes) -> None:
    """Keep ``parts``, one behind the other: whoever reads meanwhile, or after a crash, finds the old one or the new."""
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        descriptor, written = tempfile.mkstemp(prefix=f".{name.partition('-')[0]}-", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(descriptor)
            os.replace(written, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(written)
            raise
    except OSError as error:
        raise CacheError(f"{path} cannot be written: {error.strerror or error}") from None
