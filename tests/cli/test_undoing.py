"""What `undo` undoes: one change after the other, backwards, whatever was undone before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.policy.bus.bucket import HISTORY
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.undoing import last_change, told


class Log:
    """A store's log under the hands of somebody who changes and undoes."""

    def __init__(self) -> None:
        self.log: list[Revision] = []

    def change(self, back_to: int | None = None, /, **values: str | None) -> int:
        """One change of several keys; its last revision."""
        change = f"c{len(self.log)}"
        for key, value in values.items():
            self.step(change, key, value, back_to)
        return len(self.log)

    def step(self, change: str, key: str, value: str | None, back_to: int | None = None) -> None:
        """A step of a change."""
        self.log.append(
            Revision(
                key=f"Route.{key}",
                sequence=len(self.log) + 1,
                value=None if value is None else value.encode(),
                time="2026-01-31T12:00:00Z",
                operator="ann",
                message=f"to {value}",
                change=change,
                back_to=back_to,
            )
        )

    def undo(self, *keys: str) -> None:
        """As the command does it."""
        back = last_change(self.log, [f"Route.{key}" for key in keys])
        self.change(
            back.back_to,
            **{
                key.removeprefix("Route."): None
                if found is None or found.value is None
                else found.value.decode()
                for key, found in back.found.items()
            },
        )

    def to(self, revision: int) -> None:
        """`undo --to-revision`."""
        then = {each.key: each for each in self.log if each.sequence <= revision}
        keys = {each.key for each in self.log}
        values = {key: then[key].value if key in then else None for key in keys}
        self.change(
            revision,
            **{
                key.removeprefix("Route."): None if each is None else each.decode()
                for key, each in values.items()
            },
        )

    @property
    def now(self) -> dict[str, str]:
        """What stands there."""
        last = {each.key.removeprefix("Route."): each.value for each in self.log}
        return {key: value.decode() for key, value in last.items() if value is not None}


def test_two_undos_go_two_changes_back() -> None:
    """An undo is never what the next one undoes, and after the first change there is nothing left."""
    log = Log()
    for value in ("1", "2", "3"):
        log.change(a=value)
    for expected in ({"a": "2"}, {"a": "1"}, {}):
        log.undo()
        assert log.now == expected
    with pytest.raises(CliError, match="every change is undone already") as caught:
        log.undo()
    assert "--to-revision" in caught.value.hint


def test_a_change_after_an_undo_is_the_next_to_go() -> None:
    """What was undone before it stays undone."""
    log = Log()
    log.change(a="1")
    log.change(a="2")
    log.undo()
    log.change(a="3")
    log.undo()
    assert log.now == {"a": "1"}
    log.undo()
    assert log.now == {}


def test_what_comes_back_by_its_revision_can_be_undone_again() -> None:
    """`--to-revision` puts back what held then, with all that can be undone of it."""
    log = Log()
    log.change(a="1")
    second = log.change(a="2")
    log.undo()
    log.undo()
    log.to(second)
    assert log.now == {"a": "2"}
    log.undo()
    assert log.now == {"a": "1"}


def test_an_undo_of_one_policy_leaves_the_others_theirs() -> None:
    """Changes of other policies in between are neither lost nor skipped."""
    log = Log()
    log.change(a="1")
    log.change(a="2")
    log.change(b="1")
    log.undo("a")
    assert log.now == {"a": "1", "b": "1"}
    log.undo()
    assert log.now == {"a": "1"}
    log.undo()
    assert log.now == {}


def test_a_change_of_several_is_undone_as_one() -> None:
    """All of its keys, each to what stood there before its first step; of a part of them, that part."""
    log = Log()
    log.change(a="1", b="1")
    log.step("big", "a", "between")
    log.step("big", "b", "2")
    log.step("big", "a", "2")
    back = last_change(log.log)
    assert {key: each and each.value for key, each in back.found.items()} == {
        "Route.a": b"1",
        "Route.b": b"1",
    }
    log.undo("a")
    assert log.now == {"a": "1", "b": "2"}
    log.undo()
    assert log.now == {"a": "1", "b": "1"}


def test_what_was_taken_back_at_once_is_no_change() -> None:
    """A change that failed in the middle left nothing that could be undone."""
    log = Log()
    log.change(a="1")
    log.step("failed", "b", "1")
    log.step("failed", "b", None)
    log.undo()
    assert log.now == {}


def test_what_is_not_kept_any_more_is_said() -> None:
    """The store keeps so many revisions of a key: nobody knows what stood before the oldest."""
    log = Log()
    log.change(7, a="0")
    for number in range(1, HISTORY):
        log.change(a=str(number))
    for _ in range(HISTORY - 1):
        log.log.append(log.log[-1])
    kept = [each for each in log.log if each.sequence == 1] * HISTORY
    with pytest.raises(CliError, match=r"at revision 7 .*what to undo next is not known"):
        last_change(kept)
    with pytest.raises(CliError, match="not kept any more"):
        last_change([log.log[5]] * HISTORY)


class Short(Log):
    """The same, of which the oldest revisions of each key are dropped, as the store does it."""

    def kept(self) -> list[Revision]:
        """What the store has."""
        of = {key: [each for each in self.log if each.key == key] for key in {each.key for each in self.log}}
        return sorted(
            (each for revisions in of.values() for each in revisions[-HISTORY:]),
            key=lambda each: each.sequence,
        )


def test_what_an_undo_went_back_to_is_not_read_as_nothing() -> None:
    """It put back a revision that is older than all that are kept: which change that was nobody knows, so it is not
    undone as if nothing had stood there. What came after it is undone, and goes back to it."""
    log = Short()
    log.change(a="first")
    for number in range(HISTORY):
        log.change(a=str(number))
    log.to(1)
    undone = len(log.log)
    with pytest.raises(CliError, match=rf"^Route/a: .* at revision 1 .* revision {undone}\)") as caught:
        last_change(log.kept())
    assert "--to-revision" in caught.value.hint
    log.change(a="after")
    back = last_change(log.kept())
    assert [each and each.value for each in back.found.values()] == [b"first"]
    log.change(back.back_to, a="first")
    with pytest.raises(CliError, match="what to undo next is not known"):
        last_change(log.kept())
    log.to(0)
    with pytest.raises(CliError, match="every change is undone already"):
        last_change(log.kept())


def test_a_policy_of_which_the_last_change_is_not_known_holds_up_no_younger_change() -> None:
    """A change of another policy that was made after what was put back is the last one; an older one may not be."""
    log = Short()
    log.change(b="old")
    log.change(a="first")
    for number in range(HISTORY):
        log.change(a=str(number))
    log.change(back := 2, a="first")
    with pytest.raises(CliError, match=rf"Route/a: .* at revision {back} "):
        last_change(log.kept())
    assert last_change(log.kept(), ["Route.b"]).found == {"Route.b": None}
    log.change(b="new")
    assert [each and each.value for each in last_change(log.kept()).found.values()] == [b"old"]


def test_it_is_said_what_is_undone_and_how_it_comes_back() -> None:
    """By whom it was, when and why."""
    log = Log()
    log.change(a="1")
    assert told(last_change(log.log), "policy undo Route/a") == (
        "undoes revision 1 (ann, 2026-01-31T12:00:00.000Z: to 1); policy undo Route/a --to-revision 1 puts that back"
    )


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123"), st.booleans()), max_size=12))
def test_undoing_everything_ends_with_nothing(does: list[tuple[str, str, bool]]) -> None:
    """Whatever was changed and undone before: undo by undo it comes to nothing, and never to a state that was not."""
    log, states = Log(), [dict[str, str]()]
    for key, value, undo in does:
        if undo:
            try:
                log.undo()
            except CliError:
                assert log.now == {}
        elif log.now.get(key) != value:
            log.change(**{key: value})
            states.append(log.now)
        assert log.now in states
    for _ in range(len(does)):
        if not log.now:
            break
        log.undo()
        assert log.now in states
    assert log.now == {}
