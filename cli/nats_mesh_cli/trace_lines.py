"""How a waterfall shares the room of a terminal: the text of a span, its duration, its bar. Pure.

Durations always stand. Bars shrink first, as far as they still show something; then the text of a span is shortened,
which an ellipsis says; where a terminal is narrower still there are no bars. Deep spans stand less far to the right
where half of the room is not enough for that, and say by how much.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nats_mesh_cli.fitting import fitted
from nats_mesh_cli.tables import clip, paint, plain, width

__all__ = ["Label", "Plan", "painted", "plan_for"]

_INDENT: Final = 2
#: How wide bars are: in a pipe, at least in a terminal (as a part of it, too), and usually there (a part).
_PIPED_BAR: Final = 33
_LEAST_BAR: Final = 12
_LEAST_PART: Final = 5
_USUAL_PART: Final = 3
#: With less for the text of a span there are no bars; so much of who called whom stands beside a status (cells).
_LEAST_TEXT: Final = 24
_LEAST_WHAT: Final = 12


@dataclass(frozen=True, slots=True)
class Label:
    """What a line says of a span: who called whom (``what``, in its ``style``), how it ended (empty: OK), and details.
    ``lost``: the span it was called from is not there."""

    depth: int
    lost: bool
    what: str
    style: str
    status: str
    status_style: str
    details: str

    @property
    def size(self) -> int:
        """How many cells it takes, without its indentation."""
        return sum(width(text) + bool(at) for at, text in enumerate(self.texts) if text) + 2 * self.lost

    @property
    def texts(self) -> tuple[str, str, str]:
        """Its parts, between which there is a blank."""
        return self.what, self.status, self.details


@dataclass(frozen=True, slots=True)
class Plan:
    """How many cells the text of a span takes, its duration, and its bar (0: there are none); by how many cells each
    level is indented, and how many levels are at most. ``wide``: a text that has no room goes on on the next line."""

    text: int
    time: int
    bar: int
    step: int
    levels: int
    wide: bool

    def padded(self, text: str) -> str:
        """``text``, which may be coloured, as wide as its column."""
        return text + " " * max(0, self.text - width(plain(text)))


def plan_for(labels: Sequence[Label], times: Sequence[str], room: int | None, *, wide: bool) -> Plan:
    """How to draw these spans in ``room`` cells (``None``: as many as it takes)."""
    time = max(map(width, [*times, "TIME"]))
    deepest = max(label.depth for label in labels)
    need = max([width("SPAN"), *(_INDENT * label.depth + label.size for label in labels)])
    if room is None:
        return Plan(need, time, _PIPED_BAR, _INDENT, deepest, wide)
    left = room - time - 2
    bar = max(left - need, _LEAST_BAR, room // _LEAST_PART)
    bar = min(bar, max(_LEAST_BAR, room // _USUAL_PART))
    text = min(need, left - bar)
    if text < min(need, _LEAST_TEXT):
        bar, text = 0, min(need, left + 1)
    half = text // 2
    step = _INDENT if _INDENT * deepest <= half else 1
    return Plan(text, time, bar, step, deepest if text == need else half // step, wide)


def painted(label: Label, plan: Plan, color: bool) -> list[str]:
    """The lines of a span's text: one, or where ``wide`` gives it more, several."""
    depth = min(label.depth, plan.levels)
    indent, before = " " * (plan.step * depth), ""
    if deeper := label.depth - depth:
        before = f"+{deeper} "
    room = plan.text - len(indent) - len(before) - 2 * label.lost
    parts: Sequence[str] = _shortened(label.texts, room)
    if plan.wide:
        parts = [" ".join(_chopped(part, max(1, room - _INDENT))) for part in label.texts]
    styles = (label.style, label.status_style, "dim")
    text = " ".join([paint(part, style, color) for part, style in zip(parts, styles, strict=True) if part])
    lost = f"{paint('…', 'warn', color)} " if label.lost else ""
    line = f"{indent}{paint(before, 'dim', color)}{lost}{text}"
    return fitted(line, plan.text).split("\n") if plan.wide else [line]


def _shortened(parts: tuple[str, str, str], room: int) -> tuple[str, str, str]:
    """The parts of a text in ``room`` cells: details go first, then the middle of who called whom."""
    what, status, details = parts
    for_status = 1 + width(status) if status else 0
    least = min(width(what), max(_LEAST_WHAT, room // 2))
    if room - for_status < least:
        status = clip(status, max(0, room - 1 - least))
        for_status = 1 + width(status) if status else 0
    what = _middle(what, room - for_status)
    left = room - for_status - width(what) - 1
    if details and left < 2 and what == parts[0] and status == parts[1]:
        # Nothing of them has room, but that there is something more is said.
        what, details = _middle(what, room - for_status - 2), "…"
    else:
        details = clip(details, max(0, left))
    return what, status, details


def _middle(text: str, cells: int) -> str:
    """``text`` in at most ``cells`` cells: its beginning and more of its end (who was called), with an ellipsis between
    them."""
    if width(text) <= cells:
        return text
    begin = clip(text, max(1, cells // 3 + 1))
    left, end = cells - width(begin), ""
    for at in range(len(text) - 1, 0, -1):
        if width(text[at:]) > left:
            break
        end = text[at:]
    while end and unicodedata.combining(end[0]):  # what it was put on is gone
        end = end[1:]
    return f"{begin}{end}"


def _chopped(text: str, cells: int) -> Iterator[str]:
    """The words of ``text``; one that is wider than ``cells`` in parts that fill a line each."""
    for word in text.split(" "):
        part, used = "", 0
        for character in word:
            if part and used + width(character) > cells:
                yield part
                part, used = "", 0
            part, used = part + character, used + width(character)
        yield part
