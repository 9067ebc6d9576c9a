"""What a member makes of each read of the store's log. Pure: no store, no bus."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.replica import (
    DOUBTS,
    EPOCH_KEY,
    MAX_TOTAL_BYTES,
    Question,
    Record,
    Replica,
    Step,
    Want,
)


def record(
    sequence: int,
    key: str = "Destination.a",
    value: bytes | None = b"v",
    *,
    time: str | None = None,
    batch: str = "",
    commit: bool = False,
    change: str = "",
    size: int | None = None,
) -> Record:
    """A message of the log."""
    size = len(value or b"") if size is None else size
    return Record(sequence, key, value, time or f"t{sequence}", batch, commit, change, size)


def epoch(sequence: int, number: int = 7) -> Record:
    """The message that says the epoch."""
    return record(sequence, EPOCH_KEY, str(number).encode())


class Store:
    """A log that answers as the server does: the newest of each key, or from a sequence on."""

    def __init__(self, *records: Record, page: int = 3, max_keys: int = 1000) -> None:
        self.log = list(records)
        self.page = page
        self.max_keys = max_keys
        self.asked: list[Question] = []

    def latest(self) -> list[Record]:
        newest = {each.key: each for each in self.log}
        return sorted(newest.values())

    def read(self, replica: Replica) -> Step:
        """Read until the replica wants no more at once."""
        for _ in range(1000):
            question = replica.question()
            self.asked.append(question)
            if question.want is Want.LATEST:
                found = self.latest()
                if len(found) > self.max_keys:
                    replica.too_many()
                    continue
                head = found[-1].sequence if found else 0
                step = replica.answer(question, found, more=False, head=head)
            else:
                rest = [each for each in self.log if each.sequence >= question.sequence]
                page = rest[: self.page]
                step = replica.answer(question, page, more=len(rest) > len(page), head=0)
            if step is not Step.MORE:
                return step
        raise AssertionError("it never ends")


def values(replica: Replica) -> dict[str, bytes | None]:
    """What a replica holds."""
    return {key: each.value for key, each in replica.entries.items()}


def test_the_first_read_takes_what_stands_there() -> None:
    """The newest of every key, deletions as such; the store's own keys are no entries."""
    store = Store(
        epoch(1), record(2), record(3, value=b"w"), record(4, "Limit.b"), record(5, "Limit.b", None)
    )
    replica = Replica()
    assert store.read(replica) is Step.CHANGED
    assert values(replica) == {"Destination.a": b"w", "Limit.b": None}
    assert (replica.epoch, replica.applied, replica.stamp) == (7, 5, "t5")
    assert store.read(replica) is Step.SAME
    assert store.asked[-1] == Question(Want.FROM, 5)


def test_what_is_new_is_read_in_pages_and_counts_once_all_of_it_is_there() -> None:
    """Nothing of a read that breaks off is kept."""
    store = Store(epoch(1))
    replica = Replica()
    store.read(replica)
    store.log += [record(n, f"Limit.l{n}") for n in range(2, 12)]
    question = replica.question()
    assert replica.answer(question, store.log[:3], more=True, head=0) is Step.MORE
    replica.abandon()
    assert values(replica) == {}
    assert store.read(replica) is Step.CHANGED
    assert len(replica.entries) == 10


def test_too_many_keys_for_one_answer_are_read_from_the_beginning() -> None:
    """The log in order comes to the same."""
    log = [epoch(1)] + [record(n, f"Limit.l{n % 5}", b"%d" % n) for n in range(2, 40)]
    one, other = Replica(), Replica()
    assert Store(*log).read(one) is Store(*log, max_keys=2).read(other) is Step.CHANGED
    assert one.entries == other.entries
    assert (one.applied, one.stamp) == (other.applied, other.stamp)


def test_a_batch_counts_when_its_last_message_was_read() -> None:
    """What came before it counts at once, what is of it does not; and the next look begins before it."""
    store = Store(epoch(1))
    replica = Replica()
    store.read(replica)
    store.log += [record(2, "Limit.a"), record(3, "Limit.b", batch="x"), record(4, "Limit.c", batch="x")]
    assert store.read(replica) is Step.CHANGED
    assert replica.waiting
    assert set(replica.entries) == {"Limit.a"}
    assert store.read(replica) is Step.LATER
    store.log.append(record(5, "Limit.d", batch="x", commit=True))
    assert store.read(replica) is Step.CHANGED
    assert set(replica.entries) == {"Limit.a", "Limit.b", "Limit.c", "Limit.d"}
    assert not replica.waiting


def test_a_batch_whose_last_message_was_superseded_is_complete() -> None:
    """Its end is not in the log any more: something that follows it shows that it was stored."""
    store = Store(epoch(1), record(2, "Limit.a", batch="x"), record(4, "Limit.c"))
    replica = Replica()
    assert store.read(replica) is Step.CHANGED
    assert set(replica.entries) == {"Limit.a", "Limit.c"}


def test_a_snapshot_in_the_middle_of_a_batch_is_not_taken() -> None:
    """What the batch replaces is not in it, so nothing of it is of use."""
    store = Store(epoch(1), record(2, "Limit.a", b"old"), record(3, "Limit.a", b"new", batch="x"))
    replica = Replica()
    assert store.read(replica) is Step.LATER
    assert replica.entries == {}
    store.log.append(record(4, "Limit.b", batch="x", commit=True))
    assert store.read(replica) is Step.CHANGED
    assert values(replica) == {"Limit.a": b"new", "Limit.b": b"v"}


def test_another_log_of_the_same_length_is_noticed_by_its_times() -> None:
    """The store was made again: what stands there is the whole truth."""
    replica = Replica()
    Store(epoch(1), record(2, "Limit.a"), record(3, "Limit.b")).read(replica)
    other = Store(epoch(1, 8), record(2, "Limit.c"), record(3, "Limit.d", time="later"))
    assert other.read(replica) is Step.CHANGED
    assert set(replica.entries) == {"Limit.c", "Limit.d"}
    assert replica.epoch == 8


def test_a_shorter_log_of_another_epoch_is_believed_after_several_looks() -> None:
    """It may be a server that is behind; the looks come soon after one another."""
    replica = Replica()
    Store(epoch(1), record(2, "Limit.a"), record(3, "Limit.b")).read(replica)
    other = Store(epoch(1, 8), record(2, "Limit.c"))
    steps: list[Step] = []
    while not steps or steps[-1] is Step.LATER:
        steps.append(other.read(replica))
        assert len(steps) < 20
    assert steps == [Step.LATER] * (DOUBTS + 1) + [Step.CHANGED]
    assert set(replica.entries) == {"Limit.c"}


def test_a_server_that_is_behind_takes_nothing_back() -> None:
    """Fewer looks than it takes to believe it, then one that sees everything."""
    log = [epoch(1), record(2, "Limit.a"), record(3, "Limit.b")]
    replica = Replica()
    Store(*log).read(replica)
    for _ in range(3):
        for _ in range(DOUBTS):
            assert Store(*log[:2]).read(replica) is Step.LATER
            assert len(replica.entries) == 2
        assert Store(*log).read(replica) is Step.SAME


def test_a_restored_log_of_the_same_epoch_is_believed_too() -> None:
    """A backup from before: shorter for good."""
    log = [epoch(1), record(2, "Limit.a"), record(3, "Limit.b")]
    replica = Replica()
    Store(*log).read(replica)
    for _ in range(DOUBTS + 1):
        assert Store(*log[:2]).read(replica) is Step.LATER
    assert Store(*log[:2]).read(replica) is Step.CHANGED
    assert (replica.applied, set(replica.entries)) == (2, {"Limit.a"})


def test_a_log_without_an_epoch_takes_nothing_away() -> None:
    """It was emptied, or is no store: what is known stays, however often one looks."""
    replica = Replica()
    Store(epoch(1), record(2, "Limit.a")).read(replica)
    for log in ([], [record(3, "Limit.b")], [record(1, EPOCH_KEY, b"x"), record(3, "Limit.b")]):
        for _ in range(2 * DOUBTS):
            assert Store(*log).read(replica) in (Step.LATER, Step.NO_EPOCH)
        assert set(replica.entries) == {"Limit.a"}
    assert Store(epoch(9, 9)).read(replica) is Step.CHANGED
    assert replica.entries == {}


def test_a_new_epoch_in_the_same_log_means_to_read_everything() -> None:
    """Keys that vanished without a mark are gone then."""
    replica = Replica()
    Store(epoch(1), record(2, "Limit.a"), record(3, "Limit.b")).read(replica)
    store = Store(record(3, "Limit.b"), epoch(4, 8))
    assert store.read(replica) is Step.CHANGED
    assert set(replica.entries) == {"Limit.b"}
    assert (replica.epoch, replica.applied) == (8, 4)


def test_the_last_message_being_gone_means_to_read_everything() -> None:
    """It was superseded by as many as are kept, or purged with its key: nothing shows that the log is the same one."""
    replica = Replica()
    Store(epoch(1), record(2, "Limit.a")).read(replica)
    store = Store(epoch(1), record(3, "Limit.a", None), record(4, "Limit.b"))
    assert store.read(replica) is Step.CHANGED
    assert values(replica) == {"Limit.a": None, "Limit.b": b"v"}
    assert Question(Want.LATEST, 0) in store.asked


def test_more_than_is_held_is_not_taken() -> None:
    """By bytes, whatever of it is kept in memory, also where it is all one batch."""
    replica = Replica()
    Store(epoch(1), record(2, "Limit.a")).read(replica)
    half = MAX_TOTAL_BYTES // 2 + 1
    for batch in ("", "x"):
        store = Store(
            epoch(1),
            record(2, "Limit.a"),
            record(3, "Limit.b", b"", size=half, batch=batch),
            record(4, "Limit.c", b"", size=half, batch=batch),
        )
        assert store.read(replica) is Step.TOO_MUCH
        assert set(replica.entries) == {"Limit.a"}


def test_what_was_kept_is_gone_on_from() -> None:
    """A start from the disk reads what is new, and nothing else."""
    log = [epoch(1), record(2, "Limit.a"), record(3, "Limit.b")]
    first = Replica()
    Store(*log).read(first)
    second = Replica()
    second.restore(first.epoch, first.applied, first.stamp, first.entries.values())
    store = Store(*log, record(4, "Limit.a", None))
    assert store.read(second) is Step.CHANGED
    assert store.asked == [Question(Want.FROM, 3)]
    assert values(second) == {"Limit.a": None, "Limit.b": b"v"}


@given(st.integers(0, 2**32), st.integers(1, 7), st.integers(1, 8))
def test_whatever_is_written_a_member_ends_with_what_stands_there_and_never_shows_half_of_a_batch(
    seed: int, page: int, max_keys: int
) -> None:
    """A store that is written in singles and batches, drops old revisions, and is made again now and then; read at
    any moment, also in the middle of a batch."""
    rng = random.Random(seed)
    log: list[Record] = [epoch(1, 1)]
    number, sequence = 1, 1
    replica = Replica()
    whole: dict[str, set[str]] = {}
    for turn in range(40):
        what = rng.random()
        if what < 0.05:
            number, sequence = number + 1, 1
            log = [record(1, EPOCH_KEY, str(number).encode(), time=f"{number}.1")]
        count = 1 if what < 0.5 else rng.randint(2, 4)
        keys = rng.sample([f"Limit.l{n}" for n in range(6)], count)
        batch = f"b{turn}" if count > 1 else ""
        whole[batch] = set(keys)
        for at, key in enumerate(keys):
            sequence += 1
            value = None if rng.random() < 0.2 else b"%d" % rng.randrange(100)
            commit = bool(batch) and at == count - 1
            log.append(record(sequence, key, value, time=f"{number}.{sequence}", batch=batch, commit=commit))
            old = [each for each in log if each.key == key][:-3]
            log = [each for each in log if each not in old]
            if rng.random() < 0.3:
                Store(*log, page=page, max_keys=max_keys).read(replica)
                if batch and not commit:
                    assert not any(each.batch == batch for each in replica.entries.values())
    store = Store(*log, page=page, max_keys=max_keys)
    for _ in range(DOUBTS + 3):
        store.read(replica)
    assert values(replica) == {each.key: each.value for each in store.latest() if each.key != EPOCH_KEY}
    assert (replica.epoch, replica.applied) == (number, sequence)
