"""Names that people give: of policies, revisions, changes, instances. Whatever a command prints of one is taken here.

Pure, over what stands in a store or in its log.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from nats_mesh.core.sync_state import policy_label
from nats_mesh.policy.bus.revisions import Revision
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.hints import listed, nearest

__all__ = [
    "by_key",
    "changes_called",
    "gone_of",
    "is_instance",
    "missing",
    "revision_called",
    "selected",
    "without_revision",
]

_REVISION: Final = re.compile(r"(?:(\d{1,15})\.)?(\d{1,15})")
#: Where a document of the store is said to stand: ``Route/orders@41``, ``Route.orders@41:3``.
_AT: Final = re.compile(r"(.+)@(\d{1,15})(?::\d+)?")
#: How much of a change's id must be given at least.
_LEAST_ID: Final = 4


def without_revision(name: str) -> tuple[str, int | None]:
    """``Route/orders@41`` as the name and the revision; ``None`` where it has none."""
    match = _AT.fullmatch(name)
    return (name, None) if match is None else (match[1], int(match[2]))


def gone_of(log: Iterable[Revision]) -> frozenset[str]:
    """The keys of a log under which nothing stands any more."""
    last = {each.key: each.value for each in log}
    return frozenset(key for key, value in last.items() if value is None)


def selected(
    name: str, known: Iterable[str], *, place: str = "in the store", gone: Collection[str] = ()
) -> list[str]:
    """The keys that ``KIND/NAME``, ``KIND`` or ``Kind.name`` means; :class:`CliError` where it means none. Those of the
    ``known`` that are ``gone`` are called so where they are proposed."""
    keys = list(known)
    kind, _, rest = name.partition("/" if "/" in name else ".")
    kinds = {key.partition(".")[0] for key in keys}
    match = next(
        (each for each in kinds if each.lower() == kind.lower().removesuffix("s") or each == kind), None
    )
    own = [key for key in keys if key.startswith(f"{match}.")]
    if match is not None and not rest:
        return own
    key = f"{match}.{rest}"
    if match is not None and key in own:
        return [key]
    if not rest:
        raise CliError(
            f"there are no policies of kind {kind!r} {place}", hint=nearest(kind, kinds), code=FAILED
        )
    raise missing(f"{match or kind}.{rest}", keys, place=place, gone=gone)


def missing(
    key: str, known: Iterable[str], *, place: str = "in the store", gone: Collection[str] = ()
) -> CliError:
    """What to say where no policy has this key: the nearest name of its kind, the same name of another, or what there
    is; of those that are ``gone``, that they were deleted."""
    kind, _, name = key.partition(".")
    keys = list(known)
    same = [_called(each, gone) for each in keys if each.partition(".")[2] == name]
    own = {each.partition(".")[2]: each for each in keys if each.startswith(f"{kind}.")}
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.6)  # their kind would make all of them alike
    if same:
        hint = f"did you mean {', '.join(sorted(same))}?"
    elif near:
        nearest_key = own[near[0]]
        hint = f"did you mean {policy_label(nearest_key)!r}{_deleted(nearest_key, gone)}?"
    elif own:
        stand = [policy_label(each) for each in own.values() if each not in gone]
        were = [policy_label(each) for each in own.values() if each in gone]
        parts = [("there are", stand), ("deleted", were)]
        hint = "; ".join([f"{word}: {listed(labels)}" for word, labels in parts if labels])
    else:
        hint = nearest(f"{kind}/{name}", map(policy_label, keys)) or "there are no policies"
    return CliError(f"there is no {policy_label(key)} {place}", hint=hint, code=FAILED)


def _called(key: str, gone: Collection[str]) -> str:
    return f"{policy_label(key)}{_deleted(key, gone)}"


def _deleted(key: str, gone: Collection[str]) -> str:
    return " (deleted)" if key in gone else ""


def is_instance(record: Mapping[str, Any], word: str, *, whole: bool = False) -> bool:
    """Whether an instance is called so: by its id or its host-pid, ``whole`` or the begin of it, alone or behind its
    service (``orders/0nfaZ7x2``)."""
    service, slash, name = word.rpartition("/")
    if not name or (slash and record["service"] != service):
        return False
    names = (str(record["instance"]), str(record["host_pid"] or ""))
    return name in names if whole else any(each.startswith(name) for each in names)


def changes_called(word: str, log: Sequence[Revision]) -> list[Revision]:
    """The revisions of the change whose id is ``word``, or begins with it; none where there is no such change."""
    if len(word) < _LEAST_ID:
        return []
    found = {each.change for each in log if each.change.startswith(word)}
    if len(found) > 1 and word not in found:
        raise CliError(f"{len(found)} changes have an id that begins with {word!r}", hint="give more of it")
    change = word if word in found else next(iter(found), "")
    return [each for each in log if change and each.change == change]


def revision_called(word: str, log: Sequence[Revision], *, epoch: int, last: int) -> int:
    """The number of a revision out of what is printed of one: ``41``, ``1795706360965.41`` (with the store's epoch),
    ``Route/orders@41``, or a change's id (the last revision of it)."""
    name, number = without_revision(word)
    match = _REVISION.fullmatch(word)
    if match is not None:
        if match[1] is not None and epoch and int(match[1]) != epoch:
            raise CliError(
                f"{word} is a revision of a store that was there before: this one is {epoch}", code=FAILED
            )
        number = int(match[2])
    if number is None:
        found = changes_called(name, log)
        if not found:
            raise CliError(
                f"{word!r} is no revision and no change",
                hint="a number such as 41, or the id of a change: 'history -o wide' shows both",
                code=FAILED,
            )
        return found[-1].sequence
    if not 1 <= number <= last:
        raise CliError(
            f"there is no revision {number}: the last one is {last}",
            hint="'history' lists them",
            code=FAILED,
        )
    return number


def by_key(log: Iterable[Revision]) -> Mapping[str, list[Revision]]:
    """The revisions of each key, the oldest first."""
    found: dict[str, list[Revision]] = {}
    for each in log:
        found.setdefault(each.key, []).append(each)
    return found
