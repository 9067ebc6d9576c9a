"""`nats-mesh` for scripts that run many commands: Python and the program's modules start once for all of them.

``python -m tests.forked SOCKET`` waits for commands, each of which is a fork of it, with the descriptors of whoever
gave it. :func:`serving` gives a folder for the front of PATH whose `nats-mesh` hands its command over, the signals that
it gets too, and ends with its exit code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tests.tools import ROOT

__all__ = ["serving"]

#: The program that stands in for `nats-mesh`: it starts within milliseconds.
_CLIENT = """#!{python} -IS
import os, signal, socket, sys

there = socket.socket(socket.AF_UNIX)
there.connect({path!r})
ours = ("NATS_", "MESH_", "NO_COLOR")
environ = [f"{{name}}={{value}}" for name, value in os.environ.items() if name.startswith(ours)]
words = [str(len(environ)), *environ, *sys.argv[1:]]
socket.send_fds(there, ["\\0".join(words).encode()], [0, 1, 2])
pid = int.from_bytes(there.recv(4), "big")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(pid, number))
code = there.recv(1)
sys.exit(code[0] if code else 70)  # 70: it ended without an exit code
"""
_MAX_COMMAND = 64 * 1024
_OF_THE_MESH = ("NATS_", "MESH_", "NO_COLOR", "FORCE_COLOR", "COLUMNS")


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The folder with the program. Commands run from the root of the project, with the variables of the mesh that
    whoever gives them has."""
    with tempfile.TemporaryDirectory(prefix="nats-mesh-") as folder:  # the path of a socket must be short
        path = str(Path(folder, "s"))
        command = [sys.executable, "-m", "tests.forked", path]
        own = {name: value for name, value in os.environ.items() if not name.startswith(_OF_THE_MESH)}
        with subprocess.Popen(
            command, cwd=ROOT, env=own, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == b"ready\n"
                program = Path(folder, "nats-mesh")
                program.write_text(_CLIENT.format(python=sys.executable, path=path), encoding="utf-8")
                program.chmod(0o755)
                yield folder
            finally:
                server.kill()


def _serve(path: str) -> NoReturn:
    # What the commands would import when they are asked for.
    import nats_mesh_cli.bench
    import nats_mesh_cli.call
    import nats_mesh_cli.events
    import nats_mesh_cli.get
    import nats_mesh_cli.main
    import nats_mesh_cli.operate
    import nats_mesh_cli.policy_apply
    import nats_mesh_cli.policy_convert
    import nats_mesh_cli.policy_history
    import nats_mesh_cli.policy_trial
    import nats_mesh_cli.record

    # And what is imported when the first command is read.
    stdout = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        nats_mesh_cli.main.run(["policy", "explain", "Route.spec"])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        os.write(stdout, b"ready\n")
        while True:
            there, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _run(there)
            there.close()


def _run(there: socket.socket) -> NoReturn:
    from nats_mesh_cli.main import run

    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        given, descriptors, _, _ = socket.recv_fds(there, _MAX_COMMAND, 3)
        words = given.decode().split("\0")
        begin = int(words[0]) + 1
        os.environ.update([each.partition("=")[::2] for each in words[1:begin]])
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        there.send(os.getpid().to_bytes(4, "big"))
        code = run(words[begin:])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        there.send(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
