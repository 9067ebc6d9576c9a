"""What the bench finds, as one JSON document (version 1), and the arithmetic from samples to figures. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

__all__ = [
    "VERSION",
    "Cell",
    "LayerCost",
    "Machine",
    "PeerInfo",
    "Plan",
    "Report",
    "Sample",
    "Spread",
    "Verdict",
    "cell_of",
    "layer_costs",
    "quartiles",
    "ratio",
    "spread",
    "summarise",
]

#: Of the document; a reader refuses another one.
VERSION = 1


class Spread(msgspec.Struct, frozen=True):
    """The median of the rounds, with the lowest and the highest (of a layer: with the quartiles)."""

    median: float
    low: float
    high: float


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One cell in one round. Latencies and CPU in µs (CPU per call), memory in MiB (peak since the start).

    ``cpu_between_us`` is what stands between the two: the nats-server, or both Envoys. ``None`` is what is not
    there, or what this system does not tell.
    """

    calls: int
    errors: int
    first_error: str
    elapsed_s: float
    p50_us: float
    p99_us: float
    cpu_caller_us: float
    cpu_service_us: float | None
    cpu_between_us: float | None
    rss_caller_mib: float | None
    rss_service_mib: float | None

    @property
    def rate_per_s(self) -> float:
        """Calls a second."""
        return self.calls / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def cpu_ends_us(self) -> float:
        """CPU per call of caller and service together."""
        return self.cpu_caller_us + (self.cpu_service_us or 0.0)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One peer at one size (bytes) and so many calls in flight, over all rounds."""

    peer: str
    size: int
    in_flight: int
    rate_per_s: Spread
    p50_us: Spread
    p99_us: Spread
    cpu_caller_us: Spread
    cpu_service_us: Spread | None
    cpu_between_us: Spread | None
    rss_caller_mib: Spread | None
    rss_service_mib: Spread | None
    calls: int
    errors: int
    first_error: str
    samples: tuple[Sample, ...]


class LayerCost(msgspec.Struct, frozen=True, kw_only=True):
    """CPU per call, caller and service together, in µs; ``cost_us`` is over the plainest call of the same turn.

    Each spread is the median of the turns with their quartiles.
    """

    name: str
    title: str
    cpu_us: Spread
    cost_us: Spread
    rate_per_s: Spread
    turns: int


class PeerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table: its title, how it was set up, and why it is missing where it is (else empty)."""

    name: str
    title: str
    note: str
    missing: str


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran."""

    cores: int
    cpu: str
    kernel: str
    architecture: str
    load_before: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. With ``calls`` a cell ends after so many calls instead of ``seconds``.

    ``warm_up_s`` are the calls that a new process makes first, ``settle_s`` those before every cell.
    """

    peers: tuple[str, ...]
    sizes: tuple[int, ...]
    in_flight: tuple[int, ...]
    rounds: int
    seconds: float
    calls: int
    warm_up_s: float
    settle_s: float
    layers: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A budget and what this run says of it; ``ratio`` and ``met`` are ``None`` where it was not measured."""

    name: str
    ratio: float | None
    must: float
    aim: float | None
    at_most: bool
    met: bool | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document."""

    version: int
    taken: str
    machine: Machine
    versions: dict[str, str]
    plan: Plan
    peers: tuple[PeerInfo, ...]
    cells: tuple[Cell, ...]
    layers: tuple[LayerCost, ...]
    budgets: tuple[Verdict, ...]


def spread(values: Iterable[float]) -> Spread:
    """Median, lowest and highest; ValueError without a value."""
    found = list(values)
    if not found:
        raise ValueError("no rounds to take a median of")
    return Spread(statistics.median(found), min(found), max(found))


def quartiles(values: Iterable[float]) -> Spread:
    """Median, lower and upper quartile; ValueError without a value."""
    found = sorted(values)
    if len(found) < 2:
        return spread(found)
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return Spread(middle, low, high)


def _known(samples: Sequence[Sample], value: Callable[[Sample], float | None]) -> Spread | None:
    values = [found for sample in samples if (found := value(sample)) is not None]
    return spread(values) if values else None


def summarise(peer: str, size: int, in_flight: int, samples: Sequence[Sample]) -> Cell:
    """The cell of these rounds."""
    return Cell(
        peer=peer,
        size=size,
        in_flight=in_flight,
        rate_per_s=spread(s.rate_per_s for s in samples),
        p50_us=spread(s.p50_us for s in samples),
        p99_us=spread(s.p99_us for s in samples),
        cpu_caller_us=spread(s.cpu_caller_us for s in samples),
        cpu_service_us=_known(samples, lambda s: s.cpu_service_us),
        cpu_between_us=_known(samples, lambda s: s.cpu_between_us),
        rss_caller_mib=_known(samples, lambda s: s.rss_caller_mib),
        rss_service_mib=_known(samples, lambda s: s.rss_service_mib),
        calls=sum(s.calls for s in samples),
        errors=sum(s.errors for s in samples),
        first_error=next((s.first_error for s in samples if s.first_error), ""),
        samples=tuple(samples),
    )


def layer_costs(
    titles: Mapping[str, str], turns: Mapping[str, Sequence[tuple[Sample, Sample]]]
) -> tuple[LayerCost, ...]:
    """Each layer against the plainest call. ``turns[name]`` holds (plainest, layer) measured one after the other:
    what drifts meanwhile cancels out of their difference."""
    return tuple(
        LayerCost(
            name=name,
            title=titles[name],
            cpu_us=quartiles(layer.cpu_ends_us for _, layer in pairs),
            cost_us=quartiles(layer.cpu_ends_us - plain.cpu_ends_us for plain, layer in pairs),
            rate_per_s=quartiles(layer.rate_per_s for _, layer in pairs),
            turns=len(pairs),
        )
        for name in titles
        if (pairs := turns.get(name))
    )


def cell_of(cells: Iterable[Cell], peer: str, size: int, in_flight: int) -> Cell | None:
    """The cell of that name, or ``None``."""
    for cell in cells:
        if (cell.peer, cell.size, cell.in_flight) == (peer, size, in_flight):
            return cell
    return None


def ratio(mine: Spread | None, theirs: Spread | None) -> float | None:
    """The quotient of the medians; ``None`` where one is missing or 0."""
    if mine is None or theirs is None or not theirs.median or not mine.median:
        return None
    return mine.median / theirs.median
