"""The README's picture of ``top``, from a real run: `python -m nats_mesh_cli.top.picture docs/top.svg`.

A fault is injected into one service, as an operator would: a view that sorts by trouble should have some to show.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Final

import anyio

from nats_mesh import Mesh
from nats_mesh.settings import Settings
from nats_mesh.telemetry.watching import MeshView
from nats_mesh_cli.bus import CALLER, run_async
from nats_mesh_cli.demo.events import Events
from nats_mesh_cli.demo.picture import svg
from nats_mesh_cli.demo.session import Options, Session
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.operate import fault, fault_command
from nats_mesh_cli.options import Options as Reached
from nats_mesh_cli.output import Out
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.reducing import reduce
from nats_mesh_cli.top.source import Source
from nats_mesh_cli.top.state import start
from nats_mesh_cli.top.view import render

__all__ = ["SIZE", "draw", "take"]

#: The window that the picture shows.
SIZE: Final = Size(110, 24)
_EVERY_S: Final = 0.25
_BROKEN: Final = "details"
#: So long before the load ends the picture is taken (seconds): at its end instances leave.
_BEFORE_S: Final = 2.0


def draw(data: Data, size: Size = SIZE, keys: str = "") -> str:
    """The view after these keys as an SVG document."""
    state = start(data, size)
    for key in keys:
        state = reduce(state, key)
    return svg(render(state, size), size, title="nats-mesh top", name="top")


async def take(duration_s: float) -> Data:
    """Run the demo with load for so many seconds, and look at its bus as anybody would; what is seen near the end."""
    broken = fault_command(
        "", delay_s=0.02, abort="UNAVAILABLE", share=0.08, lasting_s=duration_s, clear=False
    )
    session = Session(Options(duration_s=duration_s), Events())
    found: list[Data] = []

    async def watch() -> None:
        while session.view().phase != "running":  # noqa: ASYNC110 - a picture is taken once, and polling is the least
            await anyio.sleep(_EVERY_S)
        url = session.view().url
        told = Out(io.StringIO(), io.StringIO())
        await fault(Reached(server=url), told, _BROKEN, broken, instance=None, name=None)
        settings = Settings(servers=(url,))
        async with Mesh(CALLER, settings=settings) as mesh, MeshView(mesh) as view:
            source = Source(mesh, view, Reached(server=url), told)
            await source.ready()
            while session.view().elapsed_s < duration_s - _BEFORE_S:
                source.data()
                await anyio.sleep(_EVERY_S)
            found.append(source.data())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        summary = await session.run(anyio.Event())
        tasks.cancel_scope.cancel()
    if summary is None or not found:
        raise SystemExit("no picture of a run that was stopped")
    return found[0]


def main() -> None:
    """Write the picture to the file that is named."""
    parser = argparse.ArgumentParser(description="Take a picture of the terminal view.")
    parser.add_argument("file", type=Path, help="where to write the SVG")
    parser.add_argument("--seconds", type=float, default=40.0, help="how long the load lasts")
    parser.add_argument("--keys", default="", help="what is pressed before the picture is taken")
    chosen = parser.parse_args()
    document = draw(run_async(take(chosen.seconds)), keys=chosen.keys)
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    chosen.file.write_text(document, encoding="utf-8")
    print(f"{chosen.file}: {len(document)} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
