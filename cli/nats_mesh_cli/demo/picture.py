"""The README's picture of the live view, from a real run: `python -m nats_mesh_cli.demo.picture docs/demo.svg`."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import anyio
from rich.console import Console, RenderableType

from nats_mesh_cli.bus import run_async
from nats_mesh_cli.demo.events import Events
from nats_mesh_cli.demo.session import Options, Session
from nats_mesh_cli.demo.state import Size, ViewState
from nats_mesh_cli.demo.view import render

__all__ = ["SIZE", "draw", "svg", "take"]

#: The window that the picture shows.
SIZE = Size(120, 36)
_EVERY_S = 0.25
_TITLE = "nats-mesh demo"

# Rich's own template loads fonts from a content network; a picture should not make its viewers call anybody.
_TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="The live view">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-all"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x} {terminal_y})" clip-path="url(#{unique_id}-all)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def draw(state: ViewState, size: Size = SIZE) -> str:
    """The view as an SVG document."""
    text = render(state, size)
    text.end = "\n"
    return svg(text, size, title=_TITLE, name="demo")


def svg(what: RenderableType, size: Size, *, title: str, name: str) -> str:
    """Whatever fills a window of this size as an SVG document; ``name`` tells its styles from those of others."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=size.width,
        height=size.height,
        force_terminal=True,
        no_color=False,
        color_system="truecolor",
        highlight=False,
    )
    console.print(what)
    return console.export_svg(title=title, code_format=_TEMPLATE, unique_id=name)


async def take(duration_s: float) -> ViewState:
    """Run the demo for so many seconds and return the last thing its view showed while the load was on."""
    session = Session(Options(duration_s=duration_s), Events())
    last = session.view()
    async with anyio.create_task_group() as tasks:

        async def look() -> None:
            nonlocal last
            while True:
                seen = session.view()
                last = seen if seen.phase == "running" else last
                await anyio.sleep(_EVERY_S)

        tasks.start_soon(look)
        summary = await session.run(anyio.Event())
        tasks.cancel_scope.cancel()
    if summary is None or not summary.ok:
        raise SystemExit(
            f"no picture of a run that went wrong: {summary.problems if summary else 'it was stopped'}"
        )
    return last


def main() -> None:
    """Write the picture to the file that is named."""
    parser = argparse.ArgumentParser(description="Take a picture of the demo's live view.")
    parser.add_argument("file", type=Path, help="where to write the SVG")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long the load lasts")
    chosen = parser.parse_args()
    document = draw(run_async(take(chosen.seconds)))
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    chosen.file.write_text(document, encoding="utf-8")
    print(f"{chosen.file}: {len(document)} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
