"""What the live view shows at one moment: plain data, so that drawing is a pure function of it."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

__all__ = [
    "EdgeLine",
    "Event",
    "InstanceLine",
    "Mark",
    "PagesLine",
    "Phase",
    "Recent",
    "ServiceLine",
    "Size",
    "ViewState",
]

Phase = Literal["starting", "running", "stopping"]


class Mark(enum.StrEnum):
    """What kind of thing an event is; the value is the word a reader sees."""

    JOIN = "joined"
    LEAVE = "left"
    CHANGE = "changed"
    WARN = "warning"
    ERROR = "error"
    INFO = "info"


class Size(msgspec.Struct, frozen=True):
    """A terminal's size in cells."""

    width: int
    height: int


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """The last seconds of a service or an edge, and how many calls there ever were. Durations in seconds;
    ``None`` where there was no call."""

    rate_per_s: float = 0.0
    success: float | None = None
    p50_s: float | None = None
    p99_s: float | None = None
    calls: int = 0


class PagesLine(msgspec.Struct, frozen=True, kw_only=True):
    """What the load generator counted; ``in_flight`` pages are asked for now, ``skipped`` were not asked for
    because too many were in flight."""

    asked_per_s: float
    calls: int = 0
    failed: int = 0
    degraded: int = 0
    skipped: int = 0
    in_flight: int = 0


class ServiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One service. ``shares`` says which version answered what part of its calls (0 … 1), ``trend`` holds its
    calls per second, oldest first."""

    name: str
    ready: int
    instances: int
    recent: Recent
    shares: tuple[tuple[str, float], ...] = ()
    trend: tuple[float, ...] = ()


class EdgeLine(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls whom."""

    source: str
    service: str
    recent: Recent


class InstanceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One process; ``state`` is ``joining``, ``ready``, ``draining``, ``suspect`` or ``ended``."""

    service: str
    version: str
    pid: str
    state: str
    in_flight: int
    calls: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, at a wall-clock time ``HH:MM:SS``; ``count`` times in a row. ``topic`` is one of a few
    words: what is told is bounded for each of them apart, so that no flood of one takes the room of another."""

    time: str
    mark: Mark
    text: str
    count: int = 1
    topic: str = "other"


class ViewState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on the screen. ``elapsed_s`` counts from the first page; ``duration_s`` is how long the load
    shall last, ``None`` until somebody ends it. ``events`` are in order, the newest last."""

    url: str
    phase: Phase
    elapsed_s: float
    duration_s: float | None
    pages: PagesLine
    services: tuple[ServiceLine, ...] = ()
    edges: tuple[EdgeLine, ...] = ()
    instances: tuple[InstanceLine, ...] = ()
    events: tuple[Event, ...] = ()
