"""How what is promised stands, as observers read it: what nobody renews is nobody's word."""

from __future__ import annotations

import datetime

import pytest

from nats_mesh_cli.promised import is_old


def written(ahead_s: float) -> str:
    """An instant so many seconds from now."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ahead_s)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.parametrize("ahead_s", [0.0, -5.0, 600.0])
def test_what_is_renewed_is_believed(ahead_s: float) -> None:
    """Also from a machine whose clock is ahead."""
    assert not is_old(written(ahead_s))


@pytest.mark.parametrize("at", [-120.0, 7200.0, "9999-12-31T23:59:59Z", "9999-99-99T99:99:99Z"])
def test_one_write_does_not_stand_for_a_watcher_for_ever(at: str | float) -> None:
    """The key may be anybody's: an instant far ahead, or one that no clock says, is nobody who watches."""
    assert is_old(at if isinstance(at, str) else written(at))
