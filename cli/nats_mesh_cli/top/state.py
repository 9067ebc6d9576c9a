"""What a person has chosen, and how keys change it: pure, so that every sequence of keys can be tried.

Selections are held by what a row is (its key), not by where it stands: rows move, and the chosen one with them. A row
that is gone leaves the selection at its place. Without a choice the first row is selected: the worst, or the newest.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.top.model import Data

__all__ = ["MAX_FILTER", "MAX_ONLY", "MAX_PAGE", "VIEWS", "Choice", "Page", "State", "View", "start"]

#: The longest filter of rows and of calls to tap (characters), and the longest page (lines).
MAX_FILTER: Final = 64
MAX_ONLY: Final = 240
MAX_PAGE: Final = 2000


class View(enum.IntEnum):
    """The views, by the key that shows each."""

    SERVICES = 1
    EDGES = 2
    INSTANCES = 3
    POLICIES = 4
    TAP = 5
    EVENTS = 6


VIEWS: Final[tuple[View, ...]] = tuple(View)


class Choice(msgspec.Struct, frozen=True):
    """What is chosen in one view: the row (its ``key``, empty: the first) that stood ``at`` this place, the place in
    the list of orders that it is ``sorted`` by, and whether ``turned`` around."""

    key: str = ""
    at: int = 0
    sorted: int = 0
    turned: bool = False


class Page(msgspec.Struct, frozen=True):
    """A text over everything else, from line ``top`` on. ``about`` is what ``d`` describes of it (a target, and who
    would call), ``under`` the page that it leads back to."""

    title: str
    lines: tuple[str, ...]
    top: int = 0
    about: tuple[str, str] | None = None
    under: Page | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that drawing needs.

    ``data`` is shown; while ``paused`` newer data waits in ``latest``. ``needle`` filters rows, ``typing`` it is on.
    ``only`` says which calls to tap (:mod:`nats_mesh_cli.tap_line`; empty: all), ``asking`` is what is being written in
    its place, and ``refused`` why that cannot be.
    ``drill`` is the service (or ``source→service``) that is looked into, from line ``drill_top`` on. ``wanted`` is what
    is to be described (a target, and who would call; the answer is a ``page``), ``anew`` asks for the whole screen to
    be painted again (Ctrl-L), ``stop`` to be stopped by the shell (Ctrl-Z), ``done`` to end.
    """

    data: Data
    size: Size = Size(80, 24)
    latest: Data | None = None
    view: View = View.SERVICES
    choices: tuple[Choice, ...] = (Choice(),) * len(VIEWS)
    needle: str = ""
    typing: bool = False
    only: str = ""
    asking: str | None = None
    refused: str = ""
    graph: bool = False
    drill: str = ""
    drill_top: int = 0
    page: Page | None = None
    wanted: tuple[str, str] | None = None
    anew: bool = False
    stop: bool = False
    done: bool = False

    @property
    def paused(self) -> bool:
        """Whether what is shown stands still."""
        return self.latest is not None

    @property
    def choice(self) -> Choice:
        """What is chosen in the view that shows."""
        return self.choices[self.view - 1]

    def choose(self, choice: Choice) -> State:
        """Another choice in this view."""
        choices = list(self.choices)
        choices[self.view - 1] = choice
        return msgspec.structs.replace(self, choices=tuple(choices))


def start(data: Data, size: Size | None = None) -> State:
    """The first state."""
    return State(data=data) if size is None else State(data=data, size=size)
