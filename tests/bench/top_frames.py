"""What a frame of `nats-mesh top` costs: `python -m tests.bench.top_frames [SERVICES]`. Prints, and asserts nothing.

Milliseconds of CPU, medians of many frames, and the slowest of all. A frame after a key: `key` is what the key changes,
`draw` the pure part, `write` what becomes of it for the terminal. A frame after `news` draws a mesh that was made just
now and is elsewhere in memory, as once a second in the program; to give up the one before is no part of it. The aim is
20 ms for each with 500 services; turns of the garbage collector are in it.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace
from rich.console import Console

from nats_mesh.telemetry.snapshots import Red, Trend
from nats_mesh_cli import starting
from nats_mesh_cli.demo.painting import Painter
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.top.model import CallLine, Data, PolicyLine
from nats_mesh_cli.top.reducing import described, fed, reduce
from nats_mesh_cli.top.state import State, start
from nats_mesh_cli.top.view import render
from tests.snapshots import snapshot

FRAMES, LOOKS = 40, 15
SIZES = (Size(80, 24), Size(120, 40), Size(200, 60), Size(300, 80))
#: What is pressed before; the describing of what is selected is answered at once.
VIEWS = {
    "services": "1",
    "filtered": "1/service 1\r",
    "drill": "1\r",
    "describe": "1d",
    "edges": "2",
    "graph": "2g",
    "edge": "2\r",
    "instances": "3",
    "policies": "4",
    "policy": "4\r",
    "tap": "5",
    "events": "6",
    "help": "?",
}
_DESCRIBED = "\n".join(
    f"policy of line {n}: {'what it says of calls, and where from; ' * (n % 4)}" for n in range(300)
)


def datas(services: int) -> list[Data]:
    """Several looks at one mesh in which no number is what it was."""
    mesh = snapshot(services, events=200)
    policies = tuple(
        PolicyLine(
            name=f"Route/r{n}",
            target=f"service-{n}",
            revision=n,
            at="2026-01-01T12:00:00.123456Z",
            document="kind: Route\n" * 40,
        )
        for n in range(100)
    )
    calls = tuple(
        CallLine(
            key=str(n),
            at="2026-01-01T12:00:00.123456Z",
            caller=f"service-{n % services}",
            target="service-1.op-0",
            status="OK" if n % 5 else "UNAVAILABLE",
            duration_s=0.001 * n,
            facts=(("route", "all"),),
        )
        for n in range(500)
    )
    found = []
    for at in range(4):

        def other(red: Red, n: int, at: int = at) -> Red:
            by = 1.0 + 0.01 * at + 0.001 * (n % 50)
            return replace(
                red,
                rate_per_s=red.rate_per_s * by,
                attempts_per_s=red.attempts_per_s * by,
                p50_s=(red.p50_s or 0.0) * by,
                p95_s=(red.p95_s or 0.0) * by,
                p99_s=(red.p99_s or 0.0) * by,
            )

        def moved(trend: Trend, at: int = at) -> Trend:
            return replace(trend, rates=(*trend.rates[at:], *trend.rates[:at]))

        found.append(
            Data(
                mesh=replace(
                    mesh,
                    services=tuple(
                        [
                            replace(each, red=other(each.red, n), trend=moved(each.trend))
                            for n, each in enumerate(mesh.services)
                        ]
                    ),
                    edges=tuple(
                        [
                            replace(each, red=other(each.red, n), trend=moved(each.trend))
                            for n, each in enumerate(mesh.edges)
                        ]
                    ),
                    endpoints=tuple(
                        [
                            replace(each, red=other(each.red, n), trend=moved(each.trend))
                            for n, each in enumerate(mesh.endpoints)
                        ]
                    ),
                    members=tuple(
                        [replace(each, red=other(each.red, n)) for n, each in enumerate(mesh.members)]
                    ),
                ),
                head=(1, 42),
                policies=policies,
                calls=calls,
            )
        )
    return found


def shown(data: Data, size: Size, keys: str) -> State:
    """The state in which the view shows."""
    state = start(data, size)
    for key in keys:
        state = reduce(state, "enter" if key == "\r" else key)
    return described(state, "describe", _DESCRIBED)


def measure(
    size: Size, keys: str, first: Data, news: Callable[[int], Data] | None = None
) -> list[tuple[float, float, float]]:
    """Seconds of CPU for each of the three parts, frame by frame, with a key pressed before each, or ``news``."""
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        width=size.width,
        height=size.height,
    )
    painter = Painter(console)
    state = shown(first, size, keys)
    console.file.write(painter.painted(render(state, size).lines, size))
    found = []
    for at in range(FRAMES if news is None else LOOKS):
        before, data = state.data, None if news is None else news(at)
        begin = time.process_time()
        state = reduce(state, "down") if data is None else fed(state, data)
        pressed = time.process_time()
        frame = render(state, size)
        drawn = time.process_time()
        console.file.write(painter.painted(frame.lines, size))
        found.append((pressed - begin, drawn - pressed, time.process_time() - drawn))
        del before
    return found


def main() -> None:
    """Print a line for each view and size."""
    services = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    starting.begin()
    looks = datas(services)
    plain = [msgspec.to_builtins(each) for each in looks]
    starting.over()  # as the program does: what is there from the start is not looked through for garbage

    def read(at: int) -> Data:
        return msgspec.convert(plain[at % len(plain)], Data)

    print(f"{services} services; ms of CPU, median (slowest) of {FRAMES} frames, after news of {LOOKS}")
    print(f"{'view':<10} {'size':>7} {'key':>6} {'draw':>6} {'write':>6} {'all':>14} {'news':>14}")
    for size in SIZES:
        for name, keys in VIEWS.items():
            frames = measure(size, keys, looks[0])
            parts = [1e3 * statistics.median(part) for part in zip(*frames, strict=True)]
            told = [_told(frames), _told(measure(size, keys, looks[0], read))]
            print(
                f"{name:<10} {size.width:>3}×{size.height:<3}",
                *[f"{part:>6.1f}" for part in parts],
                *[f"{text:>14}" for text in told],
            )


def _told(frames: Sequence[tuple[float, float, float]]) -> str:
    whole = [1e3 * sum(frame) for frame in frames]
    return f"{statistics.median(whole):.1f} ({max(whole):.1f})"


if __name__ == "__main__":
    main()
