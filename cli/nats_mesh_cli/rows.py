"""Records that come one by one: lines of JSON, names, or a table that grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Column, Out, Record, dump, layout
from nats_mesh_cli.tables import Layout, is_empty, widest

__all__ = ["Growing", "Rows"]


class Growing:
    """A table whose rows come one by one. On a terminal it is as wide as what it shows, and laid out anew, under a head
    of its own, where what comes needs other room; in a pipe it has one head, by the first rows and ``least``."""

    def __init__(self, out: Out, columns: Sequence[Column], least: Sequence[int], *, wide: bool) -> None:
        self._out, self._columns, self._least, self._wide = out, columns, least, wide
        self._layout: Layout | None = None
        self._widest: list[Record] = []
        self._empty: list[Column] = []
        self._noted = False

    def take(self, records: Sequence[Record]) -> tuple[str, str]:
        """What comes next: the head to print above it, and what to say of columns that are hidden, once; either may be
        empty."""
        before, room = self._layout, self._out.columns
        if before is not None and (room is None or self._is_kept(before, records)):
            return "", ""
        self._widest = widest([*self._widest, *records], self._columns)
        found = layout(self._widest, self._columns, wide=self._wide, least=self._least, room=room)
        if before is not None and found.shape == before.shape:
            return "", ""
        self._layout = found
        shown = {column.header for column in found.columns}
        self._empty = [
            each for each in self._columns if each.header not in shown and is_empty(each, self._widest)
        ]
        note = "" if self._noted else found.note
        self._noted = self._noted or bool(note)
        return found.head(color=self._out.color), note

    def _is_kept(self, known: Layout, records: Sequence[Record]) -> bool:
        """Whether these fit the table as it is, and say nothing in columns that are hidden because nobody did."""
        return all(map(known.fits, records)) and all(is_empty(column, records) for column in self._empty)

    def row(self, record: Record) -> str:
        """The line of one of those that were taken."""
        assert self._layout is not None, "a row comes after take()"
        return self._layout.row(record, color=self._out.color)


class Rows:
    """Shows records in the form that is asked for. ``least`` is how wide each of ``columns`` is at least: who comes
    later may be wider than the first ones (see :class:`Growing`). ``name`` is what ``-o name`` shows."""

    def __init__(
        self,
        out: Out,
        fmt: Format,
        columns: Sequence[Column],
        least: Sequence[int],
        *,
        name: Callable[[Record], str] | None = None,
    ) -> None:
        self._out, self._format, self._name = out, fmt, name
        self._growing = Growing(out, columns, least, wide=fmt is Format.WIDE)

    def show(self, records: Sequence[Record]) -> None:
        """Some more."""
        if self._format is Format.JSONL:
            for record in records:
                self._out.data(dump(record, Format.JSONL))
        elif self._format is Format.NAME and self._name is not None:
            for record in records:
                self._out.data(self._name(record))
        elif records:
            self._table(records)

    def _table(self, records: Sequence[Record]) -> None:
        out = self._out
        head, note = self._growing.take(records)
        if head:
            out.data(head)
        if note:
            out.note(note, "dim")
        for record in records:
            out.data(self._growing.row(record))
