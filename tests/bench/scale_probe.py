"""What the system says of a process: the CPU it used, the memory it holds. Linux alone tells."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_s", "rss_mib"]


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process so far.

    From ``schedstat`` (nanoseconds) where the kernel keeps it; ``stat`` counts in hundredths of a second, too
    coarse for a process that is idle.
    """
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((each / "schedstat").read_text(encoding="ascii").split()[0]) for each in threads) / 1e9
    except FileNotFoundError:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        fields = stat[stat.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Resident memory of a process now, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
