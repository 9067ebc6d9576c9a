"""Records one by one: each form that goes on for ever, and columns that belong to the wide table alone."""

from __future__ import annotations

import io

from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Column, Out, Record
from nats_mesh_cli.rows import Rows

COLUMNS = (
    Column("NAME", lambda r: str(r["name"])),
    Column("WHERE", lambda r: str(r["where"]), wide=True),
    Column("WHAT", lambda r: str(r["what"])),
)
LEAST = (6, 5, 0)
FIRST: Record = {"name": "a", "where": "here", "what": "one"}
SECOND: Record = {"name": "longer than that", "where": "there", "what": "two"}


def shown(fmt: Format, *more: list[Record]) -> list[str]:
    """What stands there after some records, and some more."""
    told = io.StringIO()
    rows = Rows(Out(told, io.StringIO()), fmt, COLUMNS, LEAST, name=lambda r: str(r["name"]))
    for records in more:
        rows.show(records)
    return told.getvalue().splitlines()


def test_a_table_has_one_head_and_the_widths_of_its_beginning() -> None:
    """It cannot be laid out anew: columns are as wide as they are at least, and as the first records need."""
    assert shown(Format.TABLE, [], [FIRST], [SECOND]) == [
        "NAME    WHAT",
        "a       one",
        "longer than that  two",
    ]


def test_wide_columns_stand_in_the_wide_table() -> None:
    """With a head of their own."""
    assert shown(Format.WIDE, [FIRST]) == ["NAME    WHERE  WHAT", "a       here   one"]


def test_objects_and_names_stand_one_a_line() -> None:
    """Without a head."""
    assert shown(Format.NAME, [FIRST, SECOND]) == ["a", "longer than that"]
    assert shown(Format.JSONL, [FIRST], [SECOND])[1:] == [
        '{"name":"longer than that","where":"there","what":"two"}'
    ]
