"""One process of a measured pair: ``python -m tests.bench.worker serve|call MODULE VARIANT ADDRESS``.

Standard library only, beside uvloop and what the module brings: it runs in more than one virtual
environment. A line of JSON out says that it is ready; each line in asks for one cell, each line out answers.
The end of its input ends it, so that nothing outlives the bench.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any

from tests.bench.loop import drive

__all__ = ["main"]


def _say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def _input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _serve(module: Any, variant: str, address: str) -> None:
    commands = await _input()
    async with module.serve(address, variant) as reached_at:
        _say(ready=True, address=reached_at)
        while await commands.readline():
            pass


async def _call(module: Any, variant: str, address: str) -> None:
    commands = await _input()
    async with module.connect(address, variant) as prepare:
        _say(ready=True, address=address)
        while line := await commands.readline():
            wanted = json.loads(line)
            echo = prepare(wanted["size"])
            answer = echo.data_of(await echo.call())
            if answer != echo.sent:
                raise RuntimeError(f"the echo of {wanted['size']} bytes is another value")
            await drive(
                echo.call, in_flight=wanted["warm_up_in_flight"], seconds=wanted["warm_up_s"], calls=0
            )
            _say(phase="warm")
            await commands.readline()
            _say(
                **await drive(
                    echo.call, in_flight=wanted["in_flight"], seconds=wanted["seconds"], calls=wanted["calls"]
                )
            )


def main(arguments: list[str]) -> None:
    """Serve or call until the input ends."""
    role, name, variant, address = arguments
    module = importlib.import_module(f"tests.bench.echo.{name}")
    uvloop = importlib.import_module("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run({"serve": _serve, "call": _call}[role](module, variant, address))


if __name__ == "__main__":
    main(sys.argv[1:])
