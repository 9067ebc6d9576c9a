"""Where members stand with a change of policies, and how it went at all of them."""

from __future__ import annotations

from typing import Literal

import msgspec

from nats_mesh.core.presence import Rejection
from nats_mesh.core.sync_state import ELSEWHERE

__all__ = ["Member", "Report"]


class Member(msgspec.Struct, kw_only=True):
    """One instance of a service, or one connection of a pure client, and where it stands as far as it is known."""

    service: str
    instance: str
    kind: Literal["service", "client"] = "service"
    #: ``host-pid`` of an instance; empty where it is not known.
    name: str = ""
    source: str = ""
    revision: tuple[int, int] = (0, 0)
    rejections: tuple[Rejection, ...] = ()
    rejected: int = 0
    #: The version of the policies' schema that it reads, where it said so in a roll call; 0: it did not say.
    schema: int = 0
    #: What it refused last and why, as it said in a roll call or acknowledged.
    reason: str = ""
    #: Whether it answered when everybody was asked last, or acknowledged anything since.
    answers: bool = True
    #: Why it counts as there, and what is missing of it, in words for people; empty where nothing is.
    why: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.service, self.instance

    @property
    def place(self) -> str:
        """What people call it."""
        return f"{self.service}/{self.name or self.instance}"

    @property
    def elsewhere(self) -> bool:
        """Whether its policies come from where no change of the store reaches them."""
        return self.source in ELSEWHERE

    def called(self, name: str) -> bool:
        """Whether somebody means it by ``name``: its id, its ``host-pid``, or either after ``service/``."""
        return bool(name) and name in (
            self.instance,
            self.name,
            f"{self.service}/{self.instance}",
            f"{self.service}/{self.name}",
        )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a change went: who applied it, who refused it and why, who said nothing, whom it does not reach.

    ``silent`` are those that ought to have acknowledged, whether they answer (``Member.answers``) or not, and
    ``without`` those of them that nobody was to wait for. ``more``: there are members beyond what is kept track of, of
    whom nothing is known.
    """

    applied: tuple[Member, ...] = ()
    rejected: tuple[tuple[Member, Rejection], ...] = ()
    silent: tuple[Member, ...] = ()
    elsewhere: tuple[Member, ...] = ()
    without: tuple[Member, ...] = ()
    more: bool = False

    @property
    def done(self) -> bool:
        """Whether everybody whom it reaches has answered."""
        return not self.silent

    @property
    def agreed(self) -> bool:
        """Whether it is in effect at everybody whom it reaches, as far as all of them are known."""
        return not (self.silent or self.rejected or self.more)
