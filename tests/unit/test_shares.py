"""How shares are read and written: one way, whoever does it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.shares import read_share, share_text
from nats_mesh.policy.kinds import SHARE


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.0, 4, "0%"),
        (0.1, 4, "10%"),
        (0.07, 12, "7%"),
        (1.0, 2, "100%"),
        (1 / 3, 4, "33.33%"),
        (1 / 3, 6, "33.3333%"),
        (0.99996, 4, "100%"),
        (1e-9, 4, "0.0000001%"),
        (1e-12, 4, "0%"),
        (12.0, 3, "1200%"),
    ],
)
def test_a_share_is_written_without_what_says_nothing(share: float, digits: int, text: str) -> None:
    """So many digits, no zeros at the end, never an exponent."""
    assert share_text(share, digits) == text


@pytest.mark.parametrize(
    "text", ["", "10", "10 %", " 10%", "-1%", "1e1%", "10%%", ".5%", "5.%", "nan%", "1.1234567890%"]
)
def test_what_is_no_share_is_none(text: str) -> None:
    """A sign behind a plain number, and nothing else."""
    assert read_share(text) is None


@given(st.integers(0, 10**9), st.integers(0, 9))
def test_what_a_policy_says_comes_back(number: int, decimals: int) -> None:
    """Any share up to 100 % with up to nine digits after the point is written as the share that was read."""
    if number > 100 * 10**decimals:
        number %= 100 * 10**decimals + 1
    text = f"{number // 10**decimals}.{number % 10**decimals:0{decimals}d}%" if decimals else f"{number}%"
    share = SHARE.parse(text)
    written = SHARE.write(share)
    assert SHARE.parse(written) == share
    assert "e" not in written
