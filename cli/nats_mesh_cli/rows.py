"""Records that come one by one: lines of JSON, names, or a table that grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Column, Out, Record, dump, layout
from nats_mesh_cli.tables import Layout

__all__ = ["Rows"]


class Rows:
    """Shows records in the form that is asked for. ``least`` is how wide each of ``columns`` is at least: who comes
    later may be wider than the first ones, by which the table is laid out. ``name`` is what ``-o name`` shows."""

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
        if self._layout is None:
            wide = self._format is Format.WIDE
            self._layout = layout(
                records, self._columns, wide=wide, least=self._least, room=self._out.columns
            )
            self._out.data(self._layout.head(color=self._out.color))
            if self._layout.note:
                self._out.note(self._layout.note, "dim")
        for record in records:
            self._out.data(self._layout.row(record, color=self._out.color))
