"""Policies in a folder: read at the start, watched afterwards.

A change counts once it has come to rest: an editor's half-written file, or half of a ConfigMap, is not taken for
the whole. What is wrong is reported once, and the last good set stays in effect, also where the folder vanishes.

The folder is looked at every half second; notifications of the system would be sooner, but need a dependency, and
are not to be had on every mount.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import anyio
import anyio.to_thread

from nats_mesh.errors import PolicyError
from nats_mesh.policy.decode import Policy, decode
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.problems import Problems

__all__ = ["PolicyFolder", "load_folder", "read_files"]

#: Limits of one folder.
MAX_FILES = 10_000
MAX_TOTAL = 64 * 1024 * 1024
MAX_POLICIES = 50_000
MAX_FOLDERS_DEEP = 8
#: How often to look again whether a change has come to rest before it is taken as it is.
_LOOKS = 10

_SUFFIXES = (".yaml", ".yml", ".json")

#: What tells one state of a folder from another, by the path of each file.
_Stamps: TypeAlias = dict[str, tuple[int, ...]]
#: What is in each file, or why it cannot be read.
_Content: TypeAlias = dict[str, bytes | str]

_T = TypeVar("_T")


def load_folder(
    path: str | os.PathLike[str], *, namespace: str = "default", before: PolicySet | None = None
) -> PolicySet:
    """The policies in the files of a folder and of those below it; everything that is wrong is one
    :class:`PolicyError`.

    Files called `*.yaml`, `*.yml` and `*.json` count; names that begin with a dot, `#` or `~` do not. ``path`` may
    also be one file. ``before`` as in :meth:`PolicySet.of`. Blocks while it reads.
    """
    folder = PolicyFolder(path, namespace=namespace)
    if before is not None:
        folder.current = before
    return folder.load()


def read_files(path: str | os.PathLike[str]) -> dict[str, bytes | str]:
    """What is in the policy files of a folder, or in the one file: by their names, their bytes, or the reason why one
    cannot be read. :class:`PolicyError` where there is neither. Blocks while it reads."""
    return _read(_look(os.fspath(path)))


class PolicyFolder:
    """A folder of policies, or one file. :meth:`load` it at the start, then :meth:`watch` it.

    ``current`` is the last good set. ``poll_s`` is how often to look, ``settle_s`` how long a change must rest.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str = "default",
        poll_s: float = 0.5,
        settle_s: float = 0.1,
    ) -> None:
        self.path = os.fspath(path)
        self.current = PolicySet.empty(namespace=namespace)
        self._namespace = namespace
        self._poll_s = poll_s
        self._settle_s = settle_s
        self._limiter = anyio.CapacityLimiter(1)
        self._applied = ""  # the digest of the content of ``current``
        self._rejected = ""  # the digest, or the text, of what was reported last and is still so
        self._files: dict[str, tuple[str, tuple[Policy, ...]]] = {}  # what good files held, by digest

    def load(self) -> PolicySet:
        """Read the folder; a mistake is a :class:`PolicyError` with all that is wrong. Blocks while it reads."""
        for _ in range(_LOOKS):
            stamps = _look(self.path)
            content = _read(stamps)
            if _look(self.path) == stamps:
                break
        self.current = self._built(content)
        self._applied = _digest(content)
        return self.current

    async def watch(
        self, on_change: Callable[[PolicySet], None], on_reject: Callable[[Exception], None]
    ) -> None:
        """Follow the folder until cancelled.

        ``on_change`` gets every new good set, and once more the current one where what was rejected is gone; if it
        raises, the set counts as rejected. ``on_reject`` gets each rejection once: a :class:`PolicyError`, or what
        ``on_change`` raised; it must not raise. Both are called on the loop.
        """
        seen: _Stamps | None = None
        restless = 0
        while True:
            try:
                stamps, content = await self._rested(seen)
                if content is not None:
                    await self._take(content, on_change, on_reject)
                restless = 0 if stamps is not None else restless + 1
                if restless == _LOOKS:
                    raise PolicyError(
                        f"{self.path}: changes all the time; its policies are not taken", file=self.path
                    )
                seen = stamps
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a folder, the last good set stays in effect
                seen = None
                self._reject(error, str(error), on_reject)
            await anyio.sleep(self._poll_s)

    async def _rested(self, seen: _Stamps | None) -> tuple[_Stamps | None, _Content | None]:
        """What the folder looks like, and its content where it is not what was ``seen``; no stamps while it changes."""
        stamps = await self._in_thread(_look, self.path)
        if stamps == seen:
            return stamps, None
        for _ in range(_LOOKS):
            await anyio.sleep(self._settle_s)
            before, stamps = stamps, await self._in_thread(_look, self.path)
            if stamps == before:
                break
        content = await self._in_thread(_read, stamps)
        return (stamps, content) if await self._in_thread(_look, self.path) == stamps else (None, None)

    async def _take(
        self,
        content: _Content,
        on_change: Callable[[PolicySet], None],
        on_reject: Callable[[Exception], None],
    ) -> None:
        digest = _digest(content)
        if digest == self._applied:
            if self._rejected:
                self._rejected = ""
                on_change(self.current)
            return
        if digest == self._rejected:
            return
        try:
            policies = await self._in_thread(self._built, content)
            on_change(policies)
        except Exception as error:  # noqa: BLE001 - a set that cannot be applied is rejected, whatever the reason
            self._reject(error, digest, on_reject)
        else:
            self.current, self._applied, self._rejected = policies, digest, ""

    def _reject(self, error: Exception, key: str, on_reject: Callable[[Exception], None]) -> None:
        if key != self._rejected:
            self._rejected = key
            on_reject(error)

    def _built(self, content: _Content) -> PolicySet:
        """The set of what is in the files. What a file holds is decoded again only where the file changed."""
        problems = Problems()
        files: dict[str, tuple[str, tuple[Policy, ...]]] = {}
        policies: list[Policy] = []
        for file, held in content.items():
            if isinstance(held, str):
                problems.add(held, file=file)
                continue
            digest, before = hashlib.sha256(held).hexdigest(), len(problems)
            known = self._files.get(file)
            found = (
                known[1] if known is not None and known[0] == digest else tuple(decode(held, file, problems))
            )
            if len(problems) == before:
                files[file] = (digest, found)
            policies += found
        self._files = files
        if len(policies) > MAX_POLICIES:
            problems.add(f"has more than {MAX_POLICIES} policies", file=self.path)
        made = PolicySet.collect(policies, problems, namespace=self._namespace, before=self.current)
        problems.raise_if_any()
        return made

    async def _in_thread(self, function: Callable[..., _T], *args: object) -> _T:
        # A limiter of its own: a folder that hangs must not hold up other work in threads, nor the end of this one.
        return await anyio.to_thread.run_sync(function, *args, limiter=self._limiter, abandon_on_cancel=True)


def _look(path: str) -> _Stamps:
    """What the folder looks like now, or the one file that was named in its place."""
    if os.path.isfile(path):
        return {path: _stamp(path)}
    stamps: _Stamps = {}
    try:
        _look_into(path, 0, stamps)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            reason = f"there is no such {'file' if path.endswith(_SUFFIXES) else 'folder or file'}"
        elif isinstance(error, NotADirectoryError):
            reason = "is neither a folder nor a file"
        raise PolicyError(f"{error.filename or path}: {reason}", file=path) from None
    return dict(sorted(stamps.items()))


def _look_into(folder: str, depth: int, stamps: _Stamps) -> None:
    if depth > MAX_FOLDERS_DEEP:
        raise PolicyError(
            f"{folder}: folders are nested more than {MAX_FOLDERS_DEEP} deep; does a link lead back?",
            file=folder,
        )
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "#", "~")):
                continue
            if entry.is_dir():
                _look_into(entry.path, depth + 1, stamps)
            elif entry.name.endswith(_SUFFIXES):
                stamps[entry.path] = _stamp(entry.path)
                if len(stamps) > MAX_FILES:
                    raise PolicyError(
                        f"{folder}: there are more than {MAX_FILES} files of policies", file=folder
                    )


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:  # a link that leads nowhere, or just gone: whoever reads it will say so
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _read(stamps: _Stamps) -> _Content:
    """What is in the files: their bytes, or the reason why they cannot be read."""
    content: _Content = {}
    total = 0
    for path in stamps:
        try:
            held: bytes | str = _read_file(path)
        except OSError as error:
            held = f"cannot be read: {error.strerror or error}"
        content[path] = held
        total += len(held)
        if total > MAX_TOTAL:
            raise PolicyError(
                f"{path}: there are more than {MAX_TOTAL // 1024 // 1024} MiB of policies", file=path
            )
    return content


def _read_file(path: str) -> bytes | str:
    from nats_mesh.policy.reader import MAX_BYTES  # see decode()

    # Without waiting: what looked like a file may be a pipe by now.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "is no regular file"
        return file.read(MAX_BYTES + 1)


def _digest(content: _Content) -> str:
    digest = hashlib.sha256()
    for file, held in content.items():
        data = held.encode() if isinstance(held, str) else held
        digest.update(b"%d %s %d " % (isinstance(held, str), os.fsencode(file), len(data)))
        digest.update(data)
    return digest.hexdigest()
