"""Tests of policies as files have them: read, every mistake with its line and the nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec import UNSET

from nats_mesh.policy.decode import TEST_KIND, decode_part
from nats_mesh.policy.problems import Problems, place
from nats_mesh.policy.schema import API_VERSION
from nats_mesh.policy.trials.expectation_parts import (
    PolicyTest,
)

if TYPE_CHECKING:
    from nats_mesh.policy.reader import Node

__all__ = ["Trial", "decode_trials", "is_trial", "line_of", "parse_trials"]


class Trial(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A `PolicyTest` and where it stands."""

    document: PolicyTest
    file: str
    line: int
    lines: Mapping[str, int]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.document.metadata.name

    @property
    def place(self) -> str:
        """`file:line`."""
        return place(self.file, self.line)


def parse_trials(content: bytes | str, *, file: str = "") -> tuple[Trial, ...]:
    """The tests in a file's content; everything that is wrong with it is one :class:`PolicyError`."""
    problems = Problems()
    found = decode_trials(content.encode() if isinstance(content, str) else content, file, problems)
    problems.raise_if_any()
    return tuple(found)


def decode_trials(content: bytes, file: str, problems: Problems) -> list[Trial]:
    """The tests in a file's content that are in order; documents of other kinds are left alone."""
    from nats_mesh.policy.reader import read  # and PyYAML with it, which who reads no files can do without

    found = []
    for node in read(content, file, problems):
        if is_trial(node):
            document, lines = decode_part(PolicyTest, node, file, problems)
            if document is not None:
                trial = Trial(document=cast("PolicyTest", document), file=file, line=node.line, lines=lines)
                if _checked(trial, problems):
                    found.append(trial)
    return found


def is_trial(node: Node) -> bool:
    """Whether a document is a `PolicyTest`."""
    if not isinstance(node.value, dict):
        return False
    version, kind = node.value.get("apiVersion"), node.value.get("kind")
    return bool(version and kind and version.value == API_VERSION and kind.value == TEST_KIND)


def _checked(trial: Trial, problems: Problems) -> bool:
    """What may only be said together."""
    before = len(problems)

    def wrong(path: str, message: str) -> None:
        problems.add(message, file=trial.file, line=line_of(trial, path), path=path)

    names: dict[str, int] = {}
    for index, case in enumerate(trial.document.spec.cases):
        path = f"spec.cases[{index}]"
        first = names.setdefault(case.name, index)
        if first != index:
            wrong(f"{path}.name", f"is the name of spec.cases[{first}], too: give it another")
        expect = case.expect
        if all(getattr(expect, name) is UNSET for name in expect.__struct_fields__):
            wrong(f"{path}.expect", "expects nothing: say allowed, denied, route, or another field")
        said = [name for name in ("access", "allowed", "denied") if getattr(expect, name) is not UNSET]
        if len(said) > 1:
            wrong(f"{path}.expect", f"says {' and '.join(said)}: only one of them can hold")
        if isinstance(expect.route, list) and len(expect.route) > 1:
            for at, each in enumerate(expect.route):
                if each.share is UNSET:
                    wrong(f"{path}.expect.route[{at}]", "needs a share beside the others: 90%, or 90% ± 2%")
        fault = expect.fault
        if fault is not UNSET and fault != "off" and fault.delay is UNSET and fault.abort is UNSET:
            wrong(f"{path}.expect.fault", "expects nothing: say delay, abort, or both; or off")
    return len(problems) == before


def line_of(trial: Trial, path: str) -> int:
    """The line of a path, or of what it stands in."""
    while path:
        if path in trial.lines:
            return trial.lines[path]
        path = path[: path.rindex("[")] if path.endswith("]") else path.rpartition(".")[0]
    return trial.line
