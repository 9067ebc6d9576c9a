"""Text that fits its terminal: broken between words, below the value it belongs to, and never cut."""

from __future__ import annotations

import io
import os
import re
import termios
from collections.abc import Callable

import pytest

from nats_mesh_cli.describe import document_of
from nats_mesh_cli.describe_text import render
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.fitting import fitted
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Column, Out, drawn, paint, width
from tests.cli.infos import mesh_info

CODE = re.compile("\x1b\\[[0-9]+m")


def test_what_fits_or_is_piped_stays_as_it_is() -> None:
    """To the last cell; nothing is known of a pipe's width."""
    line = "  key  some words"
    assert fitted(line, len(line)) == line
    assert fitted(f"{line} {'x' * 500}\n", None) == f"{line} {'x' * 500}\n"


@pytest.mark.parametrize(
    ("line", "columns", "expected"),
    [
        ("  key  one two three", 14, ["  key  one two", "       three"]),
        ("  a  bb  one two three", 18, ["  a  bb  one two", "         three"]),
        ("timeout: what wins", 14, ["timeout: what", "  wins"]),
        ("    note: what wins", 16, ["    note: what", "      wins"]),
        ("  key  one  two three", 16, ["  key  one  two", "       three"]),
        ("  a long title with  one two", 20, ["  a long title with", "    one two"]),
        ("  key  abcdefghijkl one", 14, ["  key  abcdefghijkl", "       one"]),
        ("  key  漢字漢字 漢字", 16, ["  key  漢字漢字", "       漢字"]),
    ],
)
def test_a_line_goes_on_below_its_value(line: str, columns: int, expected: list[str]) -> None:
    """Below the last column that begins in the left half, else a little deeper than the line; words stay whole; wide
    signs take two cells."""
    assert fitted(line, columns).split("\n") == expected


def test_colours_hold_on_every_line_and_take_no_cell() -> None:
    """Each line ends what it began, so that nothing of it colours the indentation of the next."""
    line = f"  {paint('key', 'name', True)}  {paint('one two three', 'dim', True)} four"
    found = fitted(line, 14).split("\n")
    assert found == [
        "  \x1b[36mkey\x1b[0m  \x1b[2mone two\x1b[0m",
        "       \x1b[2mthree\x1b[0m",
        "       four",
    ]
    assert [CODE.sub("", each) for each in found] == fitted(CODE.sub("", line), 14).split("\n")


@pytest.mark.parametrize("what", ["orders", "orders.place", "AAAAAAAAAAAAAAAAAAAAAA"])
@pytest.mark.parametrize("color", [False, True])
def test_describe_fits_80_columns(what: str, color: bool) -> None:
    """A service, an endpoint and an instance, with the ids and names of hosts that there are; only what is one word may
    be wider. Where there is room, ids are whole."""
    infos = [mesh_info(identifier=each * 22, mesh_instance=f"orders-7d9c5b{'-x' * 12}-123") for each in "ABC"]
    document = document_of(what, infos, 0.0)
    assert document is not None
    text = fitted(render(document, color=color, columns=80), 80)
    plain = CODE.sub("", text)
    assert max(map(width, plain.split("\n"))) <= 80
    wide = CODE.sub("", render(document, color=color))
    assert plain.replace("\n", " ").split()[-20:] == wide.replace("\n", " ").split()[-20:]
    if what == "orders":
        assert "AAAAAAAA  1.0.0" in plain  # no room for names of hosts
        assert f"{'A' * 22}  orders-7d9c5b-x" in wide


def test_a_pipe_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor has a stream that is no file; a terminal says its own, and COLUMNS may ask for less."""
    assert Out(io.StringIO()).columns is None
    monkeypatch.setenv("COLUMNS", "50")
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w") as pipe:
        assert Out(pipe).columns is None
    master, slave = os.openpty()
    with os.fdopen(master, "rb"), os.fdopen(slave, "w") as terminal:
        termios.tcsetwinsize(slave, (24, 72))
        assert Out(terminal).columns == 50
        for nothing in ("", "0", "wide", "200"):
            monkeypatch.setenv("COLUMNS", nothing)
            assert Out(terminal).columns == 72


def told(columns: int | None, tell: Callable[[Out], None]) -> str:
    """What ``tell`` writes to both streams: of a terminal so wide, or of a pipe."""
    if columns is None:
        data, notes = io.StringIO(), io.StringIO()
        tell(Out(data, notes))
        return data.getvalue() + notes.getvalue()
    master, slave = os.openpty()
    with os.fdopen(master, "rb", buffering=0) as reader, os.fdopen(slave, "w") as terminal:
        termios.tcsetwinsize(slave, (24, columns))
        tell(Out(terminal, terminal))
        terminal.write("\0")  # a terminal has no end
        terminal.flush()
        written = b""
        while not written.endswith(b"\0"):
            written += reader.read(65536)
    return CODE.sub("", written[:-1].decode().replace("\r\n", "\n"))


NOTE = "note: the stream of spans cannot be read, and some of it is left out"


def test_notes_and_errors_break_between_words_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In colours, too; a pipe has one line for each, whatever COLUMNS says."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "30")
    error = CliError("the bus at nats://127.0.0.1:4222 cannot be reached", hint="is a server there?")
    assert told(None, lambda out: out.note(NOTE, "dim")) == f"{NOTE}\n"
    assert told(30, lambda out: out.note(NOTE, "dim")).split("\n") == [
        "note: the stream of spans",
        "  cannot be read, and some of",
        "  it is left out",
        "",
    ]
    assert told(30, lambda out: out.error(error)).split("\n") == [
        "error: the bus at",
        "  nats://127.0.0.1:4222 cannot",
        "  be reached",
        "hint: is a server there?",
        "",
    ]
    assert told(30, lambda out: out.text("  key  one two three four five six")).split("\n") == [
        "  key  one two three four five",
        "       six",
        "",
    ]


@pytest.mark.parametrize("fmt", [Format.JSON, Format.YAML])
def test_what_a_program_reads_is_not_broken(fmt: Format) -> None:
    """An error in JSON or YAML stays what it is on a terminal."""
    error = CliError("it did not go well, for a reason that has many words", hint="do something else")
    assert told(30, lambda out: out.error(error, fmt)) == told(None, lambda out: out.error(error, fmt))


def test_the_line_about_hidden_columns_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also below a table that is drawn anew in place."""
    columns = [Column(name, lambda r: "x" * 15) for name in ("ONE", "TWO", "THREE")]
    text = told(30, lambda out: out.data(drawn([{}], columns, out, wide=False)))
    assert "columns are hidden" in text
    assert max(map(width, text.split("\n"))) <= 30
