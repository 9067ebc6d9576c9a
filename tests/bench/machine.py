"""What a figure must be read with: the machine, and the versions of all that took part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from nats_mesh.testing._process import find_binary
from tests.bench.figures import Machine
from tests.bench.peers import Peer, bench_packages, node_package

__all__ = ["machine", "slug", "versions"]


def machine() -> Machine:
    """This machine, and how busy it was just before."""
    return Machine(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu=_cpu(),
        kernel=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        load_before=round(os.getloadavg()[0], 2),
    )


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or "unknown"


def slug(where: Machine) -> str:
    """A short name of the machine for a file: ``2-core-amd-epyc``."""
    return f"{where.cores}-core-" + re.sub(r"[^a-z0-9]+", "-", where.cpu.lower()).strip("-")[:40].strip("-")


def versions(peers: Iterable[Peer]) -> dict[str, str]:
    """Python, nats-server, and the libraries of these peers."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    found["nats-server"] = _said(os.fspath(find_binary(None)), "--version")
    for name in ("nats-mesh", "nats-py", "uvloop", "msgspec"):
        found[name] = importlib.metadata.version(name)
    packages = bench_packages()
    for peer in peers:
        if peer.runtime == "node":
            found["node"] = _said("node", "--version")
        for name in peer.needs:
            version = node_package(name) if peer.runtime == "node" else packages.get(name, "")
            found[name if peer.runtime != "node" else f"{name} (npm)"] = version
    return found


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().removeprefix("nats-server:").strip()
