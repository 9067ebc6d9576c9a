"""The latency histogram: cheap to feed, exact to add up, close enough to read."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.histogram import BOUNDS, Histogram, HistogramSnapshot
from nats_mesh.errors import CodecError

#: Half a bucket: four buckets to the octave, and a quantile answers the geometric middle.
MAX_ERROR = 2 ** (1 / 8) - 1

in_range = st.floats(50e-6, 120.0)
durations = st.lists(in_range, max_size=60)


def filled(values: list[float]) -> Histogram:
    """A histogram of ``values``."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def merged(*parts: Histogram) -> Histogram:
    """A new histogram with everything in ``parts``."""
    whole = Histogram()
    for part in parts:
        whole.merge(part)
    return whole


@given(durations, durations, durations)
def test_merging_is_associative_and_commutative(a: list[float], b: list[float], c: list[float]) -> None:
    """In whatever order parts are merged, counts and sum are those of all durations together."""
    x, y, z = filled(a), filled(b), filled(c)
    whole = filled(a + b + c)
    assert merged(merged(x, y), z) == whole
    assert merged(x, merged(y, z)) == whole
    assert merged(z, y, x) == whole


@given(st.lists(in_range, min_size=1, max_size=100), st.floats(0, 1))
def test_a_quantile_is_within_ten_percent(values: list[float], q: float) -> None:
    """From 50 µs to 120 s, every quantile is at most 9.1 % off the exact one."""
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    found = filled(values).quantile(q)
    assert found is not None
    assert abs(found - exact) / exact <= MAX_ERROR + 1e-9 < 0.1


@given(durations)
def test_a_snapshot_brings_everything_over(values: list[float]) -> None:
    """A snapshot travels as JSON and rebuilds the same histogram; it names filled buckets only."""
    histogram = filled(values)
    data = msgspec.json.encode(histogram.snapshot())
    snapshot = msgspec.json.decode(data, type=HistogramSnapshot)
    assert Histogram.from_snapshot(snapshot) == histogram
    assert snapshot.count == histogram.count == len(values)
    assert all(count > 0 for _, count in snapshot.buckets)


def test_the_sum_is_kept_in_nanoseconds() -> None:
    """Count and sum are exact, so that averages are."""
    histogram = filled([0.001, 0.002, 0.25])
    assert (histogram.count, histogram.sum_ns, histogram.sum_s) == (3, 253_000_000, 0.253)


def test_what_lies_outside_is_counted_at_the_ends() -> None:
    """Nothing is lost: the shortest and longest durations answer the first and the last bound."""
    histogram = filled([0.0, 1e-9, 500.0])
    assert histogram.count == 3
    assert histogram.quantile(0) == BOUNDS[0] < 50e-6
    assert histogram.quantile(1) == BOUNDS[-1] > 120


def test_an_empty_histogram_has_no_quantiles() -> None:
    """No call, no latency: not zero."""
    assert Histogram().quantile(0.5) is None


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(q: float) -> None:
    """p99 is written 0.99."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        filled([1.0]).quantile(q)


def test_buckets_of_metrics_derive_exactly() -> None:
    """0.25 ms and each doubling of it is a bound, inclusive above, so coarser buckets need no guess."""
    for doubling in range(19):
        bound = 0.00025 * 2**doubling
        assert bound in BOUNDS
        histogram = filled([bound, bound * 1.001, bound / 2])
        assert histogram.at_most(bound) == 2


@pytest.mark.parametrize(
    "snapshot",
    [
        HistogramSnapshot(((len(BOUNDS) + 1, 1),), 0),
        HistogramSnapshot(((-1, 1),), 0),
        HistogramSnapshot(((0, -1),), 0),
        HistogramSnapshot((), -1),
    ],
)
def test_a_snapshot_that_cannot_be_is_refused(snapshot: HistogramSnapshot) -> None:
    """A bucket that does not exist or a negative count is an error, not a crash or another's bucket."""
    with pytest.raises(CodecError):
        Histogram.from_snapshot(snapshot)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(snapshot), type=HistogramSnapshot)


@given(st.lists(st.lists(st.floats(1e-5, 200.0), max_size=20), max_size=12), st.data())
def test_its_pairs_are_those_of_a_snapshot_whenever_they_are_asked_for(
    parts: list[list[float]], data: st.DataObject
) -> None:
    """What is passed on is put together of what has changed alone, and is the whole all the same."""
    histogram = Histogram()
    for part in parts:
        if data.draw(st.booleans()):
            histogram.record_all(part)
        else:
            for seconds in part:
                histogram.record(seconds)
        if data.draw(st.booleans()):
            histogram.merge(Histogram.from_snapshot(histogram.snapshot()))
        if data.draw(st.booleans()):
            assert histogram.pairs() == [list(pair) for pair in histogram.snapshot().buckets]
    assert histogram.pairs() == [list(pair) for pair in histogram.snapshot().buckets]
    copied = histogram.copy()
    assert copied == histogram
    copied.record(1.0)
    assert copied != histogram


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["all", "since", "merge", "none"]), st.lists(st.floats(1e-5, 200.0), max_size=6)
        ),
        max_size=12,
    )
)
def test_what_has_changed_since_all_was_told_completes_it(turns: list[tuple[str, list[float]]]) -> None:
    """Whoever has all pairs of some moment, and those that have changed since then, has all pairs of now."""
    histogram = Histogram()
    known: dict[int, int] = {}
    for asked, durations in turns:
        histogram.record_all(list(durations[:-1]))
        for seconds in durations[-1:]:
            histogram.record(seconds)
        if asked == "all":
            known = {pair[0]: pair[1] for pair in histogram.pairs()}
        elif asked == "since":
            known |= {pair[0]: pair[1] for pair in histogram.pairs_since()}
            assert known == dict(histogram.snapshot().buckets)
        elif asked == "merge":
            other = Histogram()
            other.record_all([0.01, 0.02])
            histogram.merge(other)
    assert histogram.pairs() == [list(pair) for pair in histogram.snapshot().buckets]
