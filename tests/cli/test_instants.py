"""Moments: what is printed can be given back, and what cannot be meant is refused."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.policy.bus.revisions import instant_of
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.instants import instant, shown_time
from nats_mesh_cli.output import age

NOW = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00.123456789Z", "2026-01-31T12:00:00.123456789Z"),
        ("2026-01-31t13:00:00+01:00", "2026-01-31T12:00:00Z"),
        ("2026-01-31 12:00z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T07:00:00.5-05:00", "2026-01-31T12:00:00.5Z"),
        ("-10m", "2026-01-31T11:50:00.000000Z"),
        ("-2h30m", "2026-01-31T09:30:00.000000Z"),
        ("-3d", "2026-01-28T12:00:00.000000Z"),
        ("-1.5h", "2026-01-31T10:30:00.000000Z"),
    ],
)
def test_an_instant_is_said_in_every_usual_way(text: str, meant: str) -> None:
    """RFC 3339 in any zone with every digit that the server gives, and how long ago, also of more than a day."""
    assert instant(text, now=NOW) == meant


@given(st.integers(0, 200_000_000_000), st.integers(0, 999_999_999))
def test_what_is_shown_is_not_before_what_happened(seconds: int, nanoseconds: int) -> None:
    """``--at`` of a time out of a table shows what stood there by then, to less than a millisecond."""
    day = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    time = f"{day}.{nanoseconds:09d}".rstrip("0").rstrip(".") + "Z"
    shown = shown_time(time)
    assert len(shown) == 24
    assert instant(shown) == shown
    assert instant_of(instant(time)) == instant_of(time)
    assert instant_of(shown) >= instant_of(time)
    later = datetime.datetime.fromisoformat(shown) - datetime.datetime.fromisoformat(time)
    assert later <= datetime.timedelta(milliseconds=1)


@given(st.integers(0, 3_000_000))
def test_an_age_can_be_given_back(seconds: int) -> None:
    """What stands under AGE, with a minus, is an instant."""
    assert instant(f"-{age(seconds)}", now=NOW) <= "2026-01-31T12:00:00.000000Z"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("yesterday", "'yesterday' is no instant"),
        ("-10", "it has no unit"),
        ("2026-01-31T12:00:00", "does not say in which time zone"),
        ("2026-02-31T12:00:00Z", "is no instant"),
        ("-9999999999d", "before all time"),
        ("-10y", "is no instant"),
        ("", "is no instant"),
    ],
)
def test_what_is_no_instant_is_refused(text: str, why: str) -> None:
    """With the ways to write one."""
    with pytest.raises(CliError, match=why) as caught:
        instant(text)
    assert "-10m" in caught.value.hint


def test_what_others_wrote_as_a_time_is_shown_as_it_is() -> None:
    """A time in a record need not be one."""
    assert shown_time("soon") == "soon"
    assert shown_time("2026-01-31T12:00:00.9999Z") == "2026-01-31T12:00:01.000Z"
