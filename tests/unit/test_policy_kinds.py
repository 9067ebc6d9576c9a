"""How single values are written: with their unit, and refused without."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.policy import kinds
from nats_mesh.policy.kinds import Kind, Scalar, shown


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.DURATION, "250ms", 0.25), (kinds.DURATION, "1.5s", 1.5), (kinds.DURATION, "5m", 300.0),
        (kinds.DURATION, "24h", 86400.0), (kinds.DURATION, "0s", 0.0), (kinds.DURATION, "500us", 0.0005),
        (kinds.DURATION, "500µs", 0.0005), (kinds.SHARE, "10%", 0.1), (kinds.SHARE, "0%", 0.0),
        (kinds.SHARE, "0.5%", 0.005), (kinds.SHARE, "100%", 1.0), (kinds.RATE, "100/s", 100.0),
        (kinds.RATE, "30/m", 0.5), (kinds.RATE, "36/h", 0.01), (kinds.COUNT, 7, 7), (kinds.NUMBER, 2, 2.0),
        (kinds.NUMBER, 1.25, 1.25), (kinds.FLAG, True, True), (kinds.NAME, "a-b_C9", "a-b_C9"),
        (kinds.TEXT, "ä b", "ä b"),
        (kinds.HEADER, "X-User", "x-user"), (kinds.VERSION, "1.2.0-rc.1", "1.2.0-rc.1"),
        (kinds.BALANCER, "peak_ewma", "peak_ewma"), (kinds.CONDITION, "refused", "refused"),
    ],
)  # fmt: skip
def test_a_value_is_what_it_says(kind: Kind, text: Scalar, value: object) -> None:
    """Durations become seconds, shares numbers up to 1, rates numbers a second; the rest is itself."""
    assert kind.parse(text) == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (kinds.DURATION, 5, "must be a duration with its unit, such as 250ms, 2s or 5m, got 5"),
        (kinds.DURATION, "5", "with its unit"), (kinds.DURATION, "5 s", "with its unit"),
        (kinds.DURATION, "-5s", "got '-5s'"),
        (kinds.DURATION, "5d", "with its unit"), (kinds.DURATION, "1m30s", "with its unit"),
        (kinds.DURATION, ".5s", "with its unit"),
        (kinds.DURATION, "1e3s", "with its unit"), (kinds.DURATION, "٣s", "with its unit"),
        (kinds.DURATION, True, "got true"),
        (kinds.DURATION, "25h", "must be at most 24h, got '25h'"), (kinds.DURATION, "5s\n", "with its unit"),
        (kinds.SHARE, 0.1, "must be a share with its sign, such as 10%, got 0.1"),
        (kinds.SHARE, "10", "with its sign"),
        (kinds.SHARE, "101%", "must be at most 100%"), (kinds.SHARE, "-1%", "with its sign"),
        (kinds.RATE, 5, "must be a rate, such as 100/s or 30/m, got 5"), (kinds.RATE, "5/d", "must be a rate"),
        (kinds.COUNT, True, "must be a whole number up to 1000000, got true"),
        (kinds.COUNT, 1.5, "whole number"),
        (kinds.COUNT, -1, "whole number"), (kinds.COUNT, 1_000_001, "whole number"),
        (kinds.COUNT, "3", "got '3'"),
        (kinds.NUMBER, "2", "must be a number"), (kinds.NUMBER, math.inf, "must be a number"),
        (kinds.NUMBER, False, "got false"),
        (kinds.FLAG, "yes", "must be true or false, got 'yes'"),
        (kinds.FLAG, 1, "must be true or false, got 1"),
        (kinds.TEXT, 2, "must be text, got 2: put it in quotes"), (kinds.TEXT, "", "printable"),
        (kinds.TEXT, "a\nb", "printable"),
        (kinds.TEXT, "x" * 257, "up to 256"), (kinds.TEXT, None, "got nothing"),
        (kinds.NAME, "a.b", "'.' cannot stand in it"),
        (kinds.NAME, "all", "reserved by the mesh"), (kinds.NAME, "x" * 64, "at most 63"),
        (kinds.NAME, 7, "put it in quotes"),
        (kinds.VERSION, "v2", "not SemVer"), (kinds.VERSION, 2, "put it in quotes"),
        (kinds.HEADER, "a b", "name of a header"),
        (kinds.HEADER, "User-Bin", "names that end in -bin carry bytes; use a header without that ending"),
        (kinds.HEADER, "Mesh-Attempt", "belong to the mesh; give what tells callers' calls apart a header"),
        (kinds.HEADER, "nats-x", "names that begin with Mesh- or Nats- belong to the mesh"),
        (kinds.HEADER, 3, "name of a header"), (kinds.BALANCER, "rr", "must be one of queue, round_robin"),
        (kinds.CONDITION, "500", "must be one of refused, unavailable"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(kind: Kind, value: Scalar, reason: str) -> None:
    """A value without its unit, of another type or beyond its bounds is refused, never guessed at."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        kind.parse(value)


@given(st.integers(0, 86_400_000))
def test_durations_are_written_as_they_are_read(milliseconds: int) -> None:
    """What a duration is written as reads back as the same duration, to the millisecond."""
    seconds = milliseconds / 1e3
    assert kinds.DURATION.parse(kinds.DURATION.write(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"), (0.025, "25ms"), (1.0, "1s"), (1.5, "1.5s"), (0.0005, "0.5ms"), (60.0, "1m"),
        (90.0, "90s"), (3600.0, "1h"), (5400.0, "90m"), (5000.001, "5000.001s"),
    ],
)  # fmt: skip
def test_durations_are_written_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    """Defaults and bounds are shown as a person would write them."""
    assert kinds.DURATION.write(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"), (True, "true"), ("a\nb", r"'a\nb'"), ("ü\x1b[2J", r"'\xfc\x1b[2J'"), ([1], "a list"),
        ({}, "a mapping"), ("x" * 99, "'" + "x" * 56 + "..."),
    ],
)  # fmt: skip
def test_values_are_shown_without_what_could_forge_a_log(value: object, text: str) -> None:
    """Control characters are escaped and long values cut."""
    assert shown(value) == text
