"""Records that come one by one: lines of JSON, names, or a table that grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Column, Out, Record, dump, layout
from nats_mesh_cli.tables import Layout, widest

__all__ = ["Rows"]


class Rows:
    """Shows records in the form that is asked for. ``least`` is how wide each of ``columns`` is at least: who comes
    later may be wider than the first ones, by which the table is laid out. On a terminal it is laid out anew, under a
    head of its own, where what comes needs other room. ``name`` is what ``-o name`` shows."""

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
        self._columns, self._least = columns, least
        self._layout: Layout | None = None
        self._widest: list[Record] = []
        self._noted = False

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
        found = self._laid_out(records)
        if self._layout is None or found.shape != self._layout.shape:
            self._out.data(found.head(color=self._out.color))
            if found.note and not self._noted:
                self._out.note(found.note, "dim")
                self._noted = True
            self._layout = found
        for record in records:
            self._out.data(self._layout.row(record, color=self._out.color))

    def _laid_out(self, records: Sequence[Record]) -> Layout:
        """The table for what came and what comes; in a pipe as it was laid out at first, with one head."""
        room = self._out.columns
        if room is None and self._layout is not None:
            return self._layout
        self._widest = widest([*self._widest, *records], self._columns)
        wide = self._format is Format.WIDE
        return layout(self._widest, self._columns, wide=wide, least=self._least, room=room)
