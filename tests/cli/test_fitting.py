"""Text that fits its terminal: broken between words, below the value it belongs to, and never cut."""

from __future__ import annotations

import io
import os
import re
import termios

import pytest

from nats_mesh_cli.describe import document_of
from nats_mesh_cli.describe_text import render
from nats_mesh_cli.fitting import fitted
from nats_mesh_cli.output import Out, paint, width
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
