"""``python -m tests.bench``: interleaved rounds over a real server, medians, ratios, budgets."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench.budgets import judge
from tests.bench.figures import VERSION, PeerInfo, Plan, Report, layer_costs
from tests.bench.layers import LAYERS
from tests.bench.machine import machine, slug, versions
from tests.bench.peers import PEERS, absent
from tests.bench.plot import svg
from tests.bench.rounds import cells_of, layer_peers, measure, measure_layers
from tests.bench.table import markdown, plain

__all__ = ["main", "plan_of", "run"]

RESULTS = Path(__file__).resolve().parent / "results"
_LAYER_CELL = (128, 64)
#: Before every cell: connections grow to what is in flight, buffers to the size (seconds).
_SETTLE_S = 0.1


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = sorted({int(each) for each in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 1,64")
    return tuple(found)


def _positive(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 and up to 600")
    return found


def _count(text: str) -> int:
    [found] = _numbers(text) if "," not in text else (0,)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return found


def _names(text: str) -> tuple[str, ...]:
    wanted = set(text.split(",")) - {""}
    if (unknown := sorted(wanted - PEERS.keys())) or not wanted:
        names = ", ".join(unknown) or "of no name"
        raise argparse.ArgumentTypeError(f"no peer {names}; there are {', '.join(PEERS)}")
    return tuple(name for name in PEERS if name in wanted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    add = parser.add_argument
    add("--sizes", type=_numbers, metavar="BYTES,…", help="of a request's body (default 128,16384,524288)")
    add("--in-flight", type=_numbers, metavar="N,…", help="calls at a time (default 1,16,64,256)")
    add("--peers", type=_names, metavar="NAME,…", help="default: all; those not installed are named as such")
    add("--rounds", type=_count, help="interleaved rounds (default 5, with --quick 3)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=_positive, help="a cell in a round (default 0.3, with --quick 0.5)")
    length.add_argument("--calls", type=_count, help="a cell in a round, instead of --seconds")
    add("--warm-up", type=_positive, default=1.0, help="seconds of calls in a new process (default 1)")
    layers = parser.add_mutually_exclusive_group()
    layers.add_argument("--no-layers", action="store_true", help="leave out the table of layers")
    layers.add_argument("--only-layers", action="store_true", help="nothing but the table of layers")
    add("--quick", action="store_true", help="128 B at 1 and 64 in flight, 3 rounds, no layers: a first look")
    add("--json", type=Path, metavar="PATH", help="write the document there (- for standard output)")
    add("--plot", type=Path, metavar="PATH", help="write the picture (SVG) there")
    add("--write", action="store_true", help="write results/DATE-MACHINE.json, .md and .svg")
    add("--list", action="store_true", help="the peers and the layers, and which are installed")
    return parser


def plan_of(arguments: Sequence[str]) -> tuple[Plan, argparse.Namespace]:
    """What these arguments ask for; exits with a message where they make no sense."""
    options = _parser().parse_args(arguments)
    quick = options.quick
    plan = Plan(
        peers=() if options.only_layers else options.peers or tuple(PEERS),
        sizes=options.sizes or ((128,) if quick else (128, 16384, 524288)),
        in_flight=options.in_flight or ((1, 64) if quick else (1, 16, 64, 256)),
        rounds=options.rounds or (3 if quick else 5),
        seconds=options.seconds or (0.5 if quick else 0.3),
        calls=options.calls or 0,
        warm_up_s=options.warm_up,
        settle_s=min(_SETTLE_S, options.warm_up),
        layers=options.only_layers or not (quick or options.no_layers),
    )
    return plan, options


def run(plan: Plan) -> Report:
    """Measure all of it. What is under way goes to standard error."""
    here = machine()
    missing = {name: absent(PEERS[name]) for name in plan.peers}
    peers = {name: PEERS[name] for name in plan.peers if not missing[name]}
    cells = [(size, in_flight) for size in plan.sizes for in_flight in plan.in_flight]
    samples, failed = measure(peers, cells, plan, _tell)
    turns, layer_failed = measure_layers(layer_peers(), _LAYER_CELL, plan, _tell) if plan.layers else ({}, {})
    found = cells_of(samples)
    infos = [
        PeerInfo(
            name=name,
            title=PEERS[name].title,
            note=PEERS[name].note,
            missing=missing[name] or failed.get(name, ""),
        )
        for name in plan.peers
    ]
    infos += [
        PeerInfo(name=f"layer {name}", title=f"layer: {LAYERS[name].title}", note="", missing=reason)
        for name, reason in layer_failed.items()
    ]
    return Report(
        version=VERSION,
        taken=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=here,
        versions=versions(peers.values()),
        plan=plan,
        peers=tuple(infos),
        cells=found,
        layers=layer_costs({n: layer.title for n, layer in LAYERS.items()}, turns),
        budgets=judge(found),
    )


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")


def _list() -> None:
    for peer in PEERS.values():
        print(f"{peer.name:16}{peer.title:28}{absent(peer) or 'installed'}")
    print()
    for layer in LAYERS.values():
        print(f"{layer.name:18}{layer.title}")


def main(arguments: Sequence[str]) -> int:
    """Run the bench; 1 where a peer failed that is installed, or a call of one."""
    plan, options = plan_of(arguments)
    if options.list:
        _list()
        return 0
    report = run(plan)
    document = msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
    to_stdout = options.json is not None and str(options.json) == "-"
    sys.stdout.write(document.decode() if to_stdout else plain(report))
    if options.json is not None and not to_stdout:
        options.json.write_bytes(document)
    if options.plot is not None:
        options.plot.write_text(svg(report), encoding="utf-8")
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        stem = RESULTS / f"{report.taken[:10]}-{slug(report.machine)}"
        stem.with_suffix(".json").write_bytes(document)
        stem.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
        stem.with_suffix(".svg").write_text(svg(report), encoding="utf-8")
        _tell(f"written: {stem}.json, .md, .svg")
    failed = any(peer.missing.startswith("failed") for peer in report.peers)
    return 1 if failed or any(cell.errors for cell in report.cells) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
