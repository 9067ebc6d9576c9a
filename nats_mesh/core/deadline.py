"""Deadline arithmetic: instants of one monotonic clock, durations in seconds."""

from __future__ import annotations

from nats_mesh.errors import ConfigError

__all__ = ["DEFAULT_TIMEOUT_S", "MAX_TIMEOUT_S", "check_timeout", "deadline_for", "to_wire_ms"]

#: The timeout of a call that nothing else says anything about.
DEFAULT_TIMEOUT_S = 5.0
#: The longest timeout that makes sense on the wire: a day.
MAX_TIMEOUT_S = 86_400.0


def check_timeout(where: str, timeout_s: object) -> float:
    """A positive, finite number of seconds up to a day, or :class:`ConfigError` naming ``where`` it was given."""
    if type(timeout_s) is float and 0.0 < timeout_s <= MAX_TIMEOUT_S:  # what nearly all are
        return timeout_s
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float):
        raise ConfigError(f"{where}: timeout must be a number of seconds, got {timeout_s!r}")
    if not 0 < timeout_s <= MAX_TIMEOUT_S:  # false for a NaN, too
        raise ConfigError(
            f"{where}: timeout must be above 0 and at most {MAX_TIMEOUT_S:.0f} s, got {timeout_s!r}"
        )
    return float(timeout_s)


def deadline_for(now: float, timeout_s: float, parent: float | None) -> float:
    """The instant at which a call ends: its own timeout, or its parent's deadline where that is sooner."""
    own = now + timeout_s
    return own if parent is None or own < parent else parent


def to_wire_ms(remaining_s: float) -> int:
    """Whole milliseconds for the wire, rounded down so that no hop sees more time than its caller had.

    At least 1: a call with time left never travels with none.
    """
    return max(1, int(remaining_s * 1000.0))
