"""What a frame of `nats-mesh top` costs: `python -m tests.bench.top_frames [SERVICES]`. Prints, and asserts nothing.

Milliseconds of CPU, the median and the slowest of many frames: `key` is what a key press changes, `draw` the pure part,
`write` what rich makes of it for the terminal. The aim is 20 ms in all with 500 services.
"""

from __future__ import annotations

import io
import statistics
import sys
import time

from rich.console import Console
from rich.live import Live

from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.reducing import reduce
from nats_mesh_cli.top.state import start
from nats_mesh_cli.top.view import render
from tests.snapshots import snapshot

FRAMES = 40
VIEWS = {
    "services": "1",
    "edges": "2",
    "graph": "2g",
    "instances": "3",
    "policies": "4",
    "tap": "5",
    "events": "6",
}


def measure(data: Data, size: Size, keys: str) -> list[tuple[float, float, float]]:
    """Seconds of CPU for each of the three parts, frame by frame, with a key pressed before each."""
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        width=size.width,
        height=size.height,
    )
    state = start(data, size)
    for key in keys:
        state = reduce(state, key)
    found = []
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for _ in range(FRAMES):
            begin = time.process_time()
            state = reduce(state, "down")
            pressed = time.process_time()
            frame = render(state, size)
            drawn = time.process_time()
            live.update(frame, refresh=True)
            found.append((pressed - begin, drawn - pressed, time.process_time() - drawn))
    return found


def main() -> None:
    """Print a line for each view and size."""
    services = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    data = Data(mesh=snapshot(services, events=200), head=(1, 42))
    print(f"{services} services; ms of CPU, median (slowest) of {FRAMES} frames")
    print(f"{'view':<10} {'size':>7} {'key':>6} {'draw':>6} {'write':>6} {'all':>14}")
    for size in (Size(80, 24), Size(120, 40), Size(200, 60)):
        for name, keys in VIEWS.items():
            frames = measure(data, size, keys)
            parts = [1e3 * statistics.median(part) for part in zip(*frames, strict=True)]
            whole = [1e3 * sum(frame) for frame in frames]
            told = f"{statistics.median(whole):.1f} ({max(whole):.1f})"
            print(
                f"{name:<10} {size.width:>3}×{size.height:<3}",
                *[f"{part:>6.1f}" for part in parts],
                f"{told:>14}",
            )


if __name__ == "__main__":
    main()
