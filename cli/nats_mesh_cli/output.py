"""What a command prints: data to stdout, messages to stderr, in the form that ``-o`` asks for.

The renderers are pure functions from records (plain dictionaries with raw numbers) to text. Escape codes
are written to terminals alone, and to none where ``NO_COLOR`` or ``--no-color`` says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from nats_mesh_cli.amounts import (
    age,
    counted,
    millis,
    part_text,
    percent_text,
    rate_text,
    success_text,
    used_text,
)
from nats_mesh_cli.errors import PIPE, CliError, one_line
from nats_mesh_cli.fitting import fitted
from nats_mesh_cli.options import Format
from nats_mesh_cli.tables import Column, Record, layout, paint, table, width

__all__ = [
    "Column",
    "Out",
    "Record",
    "age",
    "counted",
    "drawn",
    "dump",
    "harmless",
    "layout",
    "millis",
    "paint",
    "part_text",
    "percent_text",
    "rate_text",
    "render_list",
    "success_text",
    "table",
    "used_text",
    "width",
]


class Out:
    """The two streams of a command. Colour goes to a stream that is a terminal, where nothing forbids it."""

    def __init__(self, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.colorless = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"

    @property
    def tty(self) -> bool:
        """Whether a person reads the data."""
        return self.stdout.isatty()

    @property
    def columns(self) -> int | None:
        """How wide the terminal is in which a person reads the data (cells), or less where ``COLUMNS`` says so;
        ``None`` where nobody does, or neither says it. What is piped looks the same whatever terminal it comes from."""
        return _columns_of(self.stdout)

    @property
    def color(self) -> bool:
        """Whether data may be coloured."""
        return self.tty and not self.colorless

    def data(self, text: str) -> None:
        """Write data and a line end; ends the program quietly where the reader has gone."""
        try:
            self.stdout.write(f"{text}\n")
            self.stdout.flush()
        except BrokenPipeError:
            raise self._closed() from None

    def text(self, text: str) -> None:
        """Write data that are words for a person: on a terminal lines are broken between words, a pipe gets them
        whole."""
        self.data(fitted(text, self.columns))

    def rows(
        self,
        records: Sequence[Record],
        columns: Sequence[Column],
        fmt: Format,
        *,
        name: Callable[[Record], str],
        nothing: str = "",
    ) -> None:
        """Write several things in the form asked for; ``nothing`` tells a person that there are none. A table fits the
        terminal that it is written to, and what it hides for that is said."""
        if records and fmt in (Format.TABLE, Format.WIDE):
            found = layout(records, columns, wide=fmt is Format.WIDE, room=self.columns)
            self.data(found.rows(records, color=self.color))
            if found.note:
                self.note(found.note, "dim")
            return
        text = render_list(records, columns, fmt, name=name, pretty=self.tty, color=self.color)
        if text:
            self.data(text)
        elif nothing and not fmt.structured:
            self.note(nothing, "dim")

    def raw(self, data: bytes) -> None:
        """Write bytes as they are."""
        try:
            self.stdout.flush()
            self.stdout.buffer.write(data)
            self.stdout.flush()
        except BrokenPipeError:
            raise self._closed() from None

    def note(self, text: str, style: str = "", *, whole: bool = False) -> None:
        """Write a message for the person at the terminal, whose lines are broken between words there; ``whole`` keeps
        lines that a program may read. What it quotes neither moves the cursor nor turns the direction; its own line
        ends and colours stay."""
        try:
            told = harmless(text) if whole else fitted(harmless(text), _columns_of(self.stderr))
            shown = paint(told, style, self.stderr.isatty() and not self.colorless)
            self.stderr.write(f"{shown}\n")
            self.stderr.flush()
        except BrokenPipeError:
            pass  # nobody reads the messages; the data may still be wanted

    def error(self, error: CliError, fmt: Format = Format.TABLE) -> None:
        """Tell what went wrong: one line and its remedy, or an object in JSON or YAML where data would be that.

        An error without a message is one that needs no telling.
        """
        if not error.message:
            return
        if fmt.structured:
            fields = {"message": error.message, "hint": error.hint, "exit_code": error.code, **error.document}
            self.note(
                dump({"error": fields}, Format.YAML if fmt is Format.YAML else Format.JSONL), whole=True
            )
            return
        color = self.stderr.isatty() and not self.colorless
        self.note(f"{paint('error:', 'bad', color)} {_lines(error.message)}")
        if error.hint:
            self.note(f"{paint('hint:', 'dim', color)} {_lines(error.hint)}")

    def _closed(self) -> CliError:
        # The interpreter flushes stdout once more at its end and would complain there.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self.stdout.fileno())
        os.close(devnull)
        return CliError("", code=PIPE)


def _columns_of(stream: TextIO) -> int | None:
    """How wide the terminal of a stream is (cells), or less where ``COLUMNS`` says so; ``None``: no terminal."""
    if not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    sizes = [int(given)] if given.isdecimal() else []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sizes.append(os.get_terminal_size(stream.fileno()).columns)
    # A shell may have exported what its terminal had once: a line that is wider than the terminal would wrap.
    return min([size for size in sizes if size > 0], default=None)


#: The escape codes that this program itself writes (:func:`paint`).
_PAINT = re.compile("(\x1b\\[[0-9]{1,2}m)")


def harmless(text: str) -> str:
    """``text`` with blanks for what a terminal would obey: everything that cannot be printed but line ends, tabs and
    this program's own colours."""
    if text.isprintable():
        return text
    return "".join(
        [
            part if at % 2 else "".join([c if c.isprintable() or c in "\n\t" else " " for c in part])
            for at, part in enumerate(_PAINT.split(text))
        ]
    )


def _lines(text: str) -> str:
    """One line; further ones (a server's log) stay lines, indented."""
    first, *others = text.split("\n")
    return "\n".join([one_line(first), *(f"  {one_line(line)}" for line in others if line.strip())])


def dump(value: Any, fmt: Format, *, pretty: bool = False) -> str:
    """A value as JSON (indented where ``pretty``), as one line of JSON, or as YAML; without a line end.

    Numbers that JSON has no word for, infinite ones and NaN, are null in all of them.
    """
    import msgspec

    if fmt is Format.YAML:
        import yaml

        # Through JSON, so that YAML shows the same plain types (and no object can reach the dumper).
        class Dumper(yaml.SafeDumper):
            """Line ends of Unicode are escaped: bare ones would be folded into blanks when they are read."""

        def text_of(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
            style = '"' if any(end in text for end in "\x85\u2028\u2029\ufeff") else None
            return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

        Dumper.add_representer(str, text_of)
        said = msgspec.json.encode(value).decode()
        plain = json.loads(said)
        # What turns the direction of a line is a letter to YAML: where there is such, everything is escaped.
        text: str = yaml.dump(
            plain, Dumper=Dumper, sort_keys=False, allow_unicode=_UNSAFE.search(said) is None
        )
        return text.removesuffix("\n").removesuffix("\n...")
    encoded = msgspec.json.encode(value)
    if pretty and fmt is Format.JSON:
        encoded = msgspec.json.format(encoded, indent=2)
    return _escaped(encoded.decode())


#: What JSON has no word for, and a terminal obeys: further control characters, and those that turn the direction.
_UNSAFE = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def _escaped(text: str) -> str:
    """JSON with these characters, which stand in its strings alone, as escapes: the same value."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def render_list(
    records: Sequence[Record],
    columns: Sequence[Column],
    fmt: Format,
    *,
    name: Callable[[Record], str],
    pretty: bool = False,
    color: bool = False,
) -> str:
    """Several things in the form asked for; a list without elements is empty text, ``[]`` in JSON and YAML."""
    if fmt is Format.NAME:
        return "\n".join(one_line(name(record)) for record in records)
    if fmt is Format.JSONL:
        return "\n".join(dump(record, fmt) for record in records)
    if fmt.structured:
        return dump(list(records), fmt, pretty=pretty)
    return table(records, columns, wide=fmt is Format.WIDE, color=color) if records else ""


def drawn(records: Sequence[Record], columns: Sequence[Column], out: Out, *, wide: bool) -> str:
    """A table that is drawn anew in place: it fits the terminal as it is now, and its last line says what it hides."""
    found = layout(records, columns, wide=wide, room=out.columns)
    text = found.rows(records, color=out.color)
    return f"{text}\n{paint(fitted(found.note, out.columns), 'dim', out.color)}" if found.note else text
