"""Durations in errors and reasons."""

from __future__ import annotations

import pytest

from nats_mesh.core.durations import duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.00042, "420 µs"),
        (0.0009999, "1 ms"),
        (0.0015, "1.5 ms"),
        (0.003, "3 ms"),
        (0.9996, "1 s"),
        (3.0, "3 s"),
        (1.2345, "1.23 s"),
        (999.9, "1000 s"),
        (86400.0, "86400 s"),
        (-0.25, "-250 ms"),
    ],
)
def test_a_duration_says_its_unit_and_three_digits(seconds: float, text: str) -> None:
    """Milliseconds are milliseconds, and never `0.001 s`; no exponent, and no zeros at the end."""
    assert duration_text(seconds) == text
