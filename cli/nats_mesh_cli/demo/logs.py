"""Where what the demo's services write is kept, for whoever asks for that: a file for each process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Self

from nats_mesh.errors import ConfigError

__all__ = ["MAX_BYTES", "LogFile", "Logs"]

#: How large a file may grow, runs before this one included.
MAX_BYTES = 64 << 20


class LogFile:
    """Appends to a file until that has ``max_bytes``. Trouble is told once, to ``on_trouble``, and ends it: nothing
    that a service writes may end the demo."""

    def __init__(
        self, file: IO[bytes], path: Path, on_trouble: Callable[[str], None], max_bytes: int = MAX_BYTES
    ) -> None:
        self._file = file
        self._path = path
        self._on_trouble = on_trouble
        self._room = max_bytes - file.seek(0, 2)
        self._over = False

    def write(self, data: bytes) -> None:
        """Append it, as far as there is room."""
        if self._over:
            return
        try:
            # A write to a file of this machine; what reads the pipe waits for no more than that.
            self._file.write(data[: self._room])
        except OSError as error:
            self._end(f"{self._path} cannot be written any more: {error.strerror or error}")
            return
        self._room -= len(data)
        if self._room <= 0:
            self._end(f"{self._path} is full: nothing more is written there")

    def _end(self, text: str) -> None:
        self._over = True
        self._on_trouble(text)

    def close(self) -> None:
        """Write no more."""
        self._over = True
        self._file.close()


class Logs:
    """The files in one folder, opened by :meth:`open` and closed together."""

    def __init__(self, folder: Path, files: dict[str, LogFile]) -> None:
        self.folder = folder
        self._files = files

    @classmethod
    def open(
        cls,
        folder: Path,
        names: Sequence[str],
        on_trouble: Callable[[str], None],
        max_bytes: int = MAX_BYTES,
    ) -> Self:
        """Make the folder, and a file for each process (``reviews:v2`` writes to ``reviews-v2.log``).

        :class:`ConfigError` where that cannot be, or a file is full already.
        """
        logs = cls(folder.expanduser().absolute(), {})
        try:
            logs.folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                path = logs.folder / f"{name.replace(':', '-')}.log"
                file = path.open("ab", buffering=0)
                logs._files[name] = LogFile(file, path, on_trouble, max_bytes)
                if (size := file.tell()) >= max_bytes:
                    raise ConfigError(
                        f"--logs: {path} has {size} bytes, and no more than {max_bytes} are kept: move it away"
                    )
        except OSError as error:
            logs.close()
            raise ConfigError(f"--logs: nothing can be written to {logs.folder}: {error}") from error
        except ConfigError:
            logs.close()
            raise
        return logs

    def of(self, name: str) -> LogFile | None:
        """The file of a process; ``None`` where it has none."""
        return self._files.get(name)

    def close(self) -> None:
        """Close all of them."""
        for file in self._files.values():
            file.close()
