"""What one caller says of instances, and what it keeps of what others say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import cast

from nats_mesh import Mesh
from nats_mesh.calling.verdicts import Verdict
from nats_mesh.core.rules import VerdictRules
from nats_mesh.layers.balance import Group
from nats_mesh.testing import MemoryMesh, run_virtual


class Members:
    """As much of a group as opinions know."""

    def __init__(self, *members: str) -> None:
        self.service = "pool"
        self.members = set(members)
        self.ejected: list[tuple[str, str]] = []
        self.on_own_ejection: Callable[[str, str], None] | None = None
        self.on_return: Callable[[str], None] | None = None

    def __contains__(self, instance: str) -> bool:
        return instance in self.members

    def eject(self, instance: str, now: float, reason: str) -> None:
        """Remember it."""
        self.ejected.append((instance, reason))

    def bad(self, instance: str) -> None:
        """The caller's own judgement."""
        assert self.on_own_ejection is not None
        self.on_own_ejection(instance, "consecutive")

    def back(self, instance: str) -> None:
        """Its ejection is over, or it is gone."""
        assert self.on_return is not None
        self.on_return(instance)


def attached(caller: Mesh, members: Members) -> Members:
    """A group whose policy asks for three callers."""
    caller.client.opinions.attach(cast(Group, members), VerdictRules())
    return members


def words(mesh: MemoryMesh) -> list[str]:
    """All that was said on the bus: who of whom, and what."""
    assert mesh.bus.recorded is not None
    return [
        f"{subject.split('.')[5]}: {subject.split('.')[4]} {json.loads(payload)['verdict']}"
        for subject, _, _, payload in mesh.bus.recorded
        if ".verdict." in subject
    ]


def test_an_instance_is_well_when_no_set_of_rules_calls_it_bad() -> None:
    """Endpoints under different rules judge apart, and speak with one voice."""

    async def main() -> None:
        async with MemoryMesh() as mesh, mesh.client("a") as caller:
            mesh.bus.recorded = []
            strict, lax = attached(caller, Members("i")), attached(caller, Members("i"))
            strict.bad("i")
            lax.bad("i")
            lax.back("i")
            assert words(mesh) == ["a: i bad", "a: i bad"]
            strict.back("i")
            strict.back("i")
            assert words(mesh) == ["a: i bad", "a: i bad", "a: i well"]

    run_virtual(main)


def test_the_others_and_the_own_word_make_an_agreement() -> None:
    """It is said who agrees, and each replica is heard for itself."""

    async def main() -> None:
        async with (
            MemoryMesh() as mesh,
            mesh.client("a") as caller,
            mesh.client("a") as replica,
            mesh.client("b") as b,
            mesh.client("c") as c,
        ):
            group = attached(caller, Members("i"))
            group.bad("i")
            for each in (replica, b):
                each.client.opinions._post.say("pool", "i", Verdict(verdict="bad"))
            group.back("i")
            await asyncio.sleep(0.1)
            assert group.ejected == []
            c.client.opinions._post.say("pool", "i", Verdict(verdict="bad"))
            await asyncio.sleep(0.1)
            assert group.ejected == [("i", "3 callers (a, b, c) agree")]

    run_virtual(main)


def test_what_was_said_of_who_is_gone_is_forgotten() -> None:
    """Only members take room."""

    async def main() -> None:
        async with MemoryMesh() as mesh, mesh.client("a") as caller, mesh.client("b") as b:
            group = attached(caller, Members("i", "j"))
            for instance in ("i", "j", "stranger"):
                b.client.opinions._post.say("pool", instance, Verdict(verdict="bad"))
            await asyncio.sleep(0.1)
            ((_, heard, _),) = caller.client.opinions._heard.values()
            assert len(heard) == 2
            group.back("i")
            assert len(heard) == 2, "its ejection is over, and others still say so"
            group.members.discard("i")
            group.back("i")
            assert len(heard) == 1

    run_virtual(main)
