"""Who is told of calls that have ended: by name, of every call or of notable ones, on both sides alike."""

from __future__ import annotations

import math
import random
from typing import Any, cast

import pytest

from nats_mesh.calling.watching import CallEnd
from nats_mesh.calling.watching import Watching as CallerWatching
from nats_mesh.serving.watching import Watching as InstanceWatching
from nats_mesh.telemetry.notes import Notes
from nats_mesh.telemetry.watchers import Watchers


def notes() -> Notes:
    """Notes that nobody reads."""
    return Notes(lambda: None, lambda note, offset_s: None, lambda key: b"", server=True)


@pytest.fixture(params=["caller", "instance"])
def watchers(request: pytest.FixtureRequest) -> Watchers[Any]:
    """Those of each side."""
    return (
        CallerWatching()
        if request.param == "caller"
        else InstanceWatching(random.Random(1), lambda every: None)
    )


def test_a_watcher_takes_the_place_of_the_one_of_its_name(watchers: Watchers[Any]) -> None:
    """Whatever either wanted to hear of; without a watcher the name is gone, and nothing of it stays."""
    watchers.set("log", print)
    watchers.set("log", repr, every=False, slow_s=0.5, notes=notes())
    watchers.set("tap", print)
    assert watchers.names == {"log", "tap"}
    assert (watchers.slow_s, watchers.notes is not None) == (0.5, True)
    watchers.set("log", None)
    watchers.set("tap", None)
    assert (watchers.names, watchers.slow_s, watchers.notes) == (frozenset(), math.inf, None)


def test_what_any_watcher_asks_for_holds_for_all(watchers: Watchers[Any]) -> None:
    """The lowest limit is the one; who leaves takes his own back."""
    watchers.set("slow", print, every=False, slow_s=0.5)
    watchers.set("slower", print, every=False, slow_s=2.0)
    assert watchers.slow_s == 0.5
    watchers.set("slow", None)
    assert watchers.slow_s == 2.0


def test_calls_are_noted_for_one_and_told_to_the_others(watchers: Watchers[Any]) -> None:
    """As long as one gives notes: of two no one could tell whose a call is, so that both are told."""
    first, second = notes(), notes()
    watchers.set("spans", print, every=False, notes=first)
    watchers.set("examples", repr, every=False)
    found = [(watchers.notes, watchers._rest)]
    watchers.set("more", print, every=False, notes=second)
    found.append((watchers.notes, watchers._rest))
    watchers.set("spans", None)
    found.append((watchers.notes, watchers._rest))
    others = {"examples": repr}
    assert found == [(first, others), (None, others), (second, others)]


def test_a_caller_without_watchers_asks_nothing_of_a_call() -> None:
    """What would tell of it is not there; it comes with those who want to hear."""
    watching = CallerWatching()

    def there() -> list[bool]:
        return [each is not None for each in (watching.tell, watching.notable, watching.rest)]

    found = [there()]
    watching.set("spans", print, every=False, notes=notes())
    found.append(there())
    watching.set("examples", print, every=False)
    found.append(there())
    watching.set("log", print)
    found.append(there())
    for name in ("spans", "examples", "log"):
        watching.set(name, None)
    found.append(there())
    assert found == [
        [False, False, False],
        [False, True, False],
        [False, True, True],
        [True, True, True],
        [False, False, False],
    ]


def test_an_instance_without_watchers_asks_nothing_of_a_call() -> None:
    """Nor notes what its handler calls, unless somebody reads that."""
    watching = InstanceWatching(random.Random(1), lambda every: None)

    def said() -> tuple[bool, bool, bool]:
        return watching.anybody, watching.every, watching.own_calls

    found = [said()]
    watching.set("spans", print, every=False)
    found.append(said())
    watching.set("slow", print, own_calls=True)
    found.append(said())
    watching.set("slow", None, own_calls=True)
    found.append(said())
    watching.set("spans", None)
    found.append(said())
    nobody, some, all_of_it = (False, False, False), (True, False, False), (True, True, True)
    assert found == [nobody, some, all_of_it, some, nobody]


@pytest.mark.parametrize("every", [True, False])
def test_watchers_may_be_set_while_a_call_is_told(every: bool) -> None:
    """By a watcher that has seen enough, say: the call is told to who was there before, and ends as it did."""
    watching, told = CallerWatching(), []

    def leaves(call: Any) -> None:
        told.append("leaves")
        watching.set("leaves", None)
        watching.set("comes", lambda call: told.append("comes"), every=every)

    watching.set("leaves", leaves, every=every)
    watching.set("stays", lambda call: told.append("stays"), every=every)
    for _ in range(2):
        tell = watching.tell if every else watching.notable
        assert tell is not None
        tell(cast(Any, CallEnd)(*[None] * 12))
    assert told == ["leaves", "stays", "stays", "comes"]
