"""`get -w`: every kind in every form that goes on, on a terminal and in a pipe."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest

from nats_mesh_cli.catalog import fault_records, instance_record
from nats_mesh_cli.get import KINDS, Kind, records_of
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record
from nats_mesh_cli.policy_history import POLICIES
from nats_mesh_cli.watch import Key, view_of
from tests.cli.infos import foreign_info, mesh_info

POLICY_KIND = Kind("policies", POLICIES, lambda r: str(r["policy"]), lambda *_: True)
POLICY: Record = {
    "policy": "Destination/orders", "target": "orders", "revision": 3, "time": "2026-01-31T12:00:00Z",
    "operator": "ann", "message": "slower",
}  # fmt: skip
ALL = {**KINDS, "policies": POLICY_KIND}
GOES_ON = (Format.TABLE, Format.WIDE, Format.JSONL, Format.NAME)


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        return True


def records(kind: Kind, version: str) -> list[Record]:
    """Some of a kind; another ``version`` is a change of them, and so is one more."""
    if kind.plural == "policies":
        return [{**POLICY, "revision": int(version[0])}]
    infos = [mesh_info(version=version, labels={"zone": "eu"}), foreign_info()]
    if kind.plural == "faults":
        told = {**instance_record(infos[0], time.time()), "faults": [fault(version)]}
        return fault_records([told])
    return records_of(kind, infos)


def fault(version: str) -> dict[str, Any]:
    """A fault that an operator set."""
    return {
        "endpoint": "place", "abort": None, "delay_ms": 100.0 * int(version[0]), "share": 0.5,
        "left_ms": 9000.0, "operator": "ann",
    }  # fmt: skip


def keyed(kind: Kind, found: list[Record]) -> dict[Key, Record]:
    """The records as a view takes them."""
    return {("", kind.plural, kind.name(each)): each for each in found}


@pytest.mark.parametrize("fmt", GOES_ON)
@pytest.mark.parametrize("plural", ALL)
@pytest.mark.parametrize("terminal", [False, True])
def test_every_kind_goes_on_in_every_form(plural: str, fmt: Format, terminal: bool) -> None:
    """What is there, a change, and the end of it: in a table each row has as many columns as the head, whatever -o
    adds."""
    kind = ALL[plural]
    told = Terminal() if terminal else io.StringIO()
    view = view_of(Options(format=fmt), Out(told, io.StringIO()), kind, {})
    view.update({})
    view.update(keyed(kind, records(kind, "1.0.0")))
    view.update(keyed(kind, records(kind, "2.0.0")))
    view.update({})
    view.close()
    lines = told.getvalue().splitlines()
    assert any("orders" in line or "AAAA" in line for line in lines)
    if fmt is Format.JSONL:
        assert {json.loads(line)["event"] for line in lines} >= {"added", "removed"}
    elif fmt is not Format.NAME and not terminal:
        assert lines[0].split("  ")[0] == "EVENT"
        assert [column.header in lines[0] for column in kind.columns if column.wide] == [
            fmt is Format.WIDE for column in kind.columns if column.wide
        ]
