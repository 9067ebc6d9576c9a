"""What is printed, in every form."""

from __future__ import annotations

import io
import json
import math
import unicodedata
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.options import Format, duration
from nats_mesh_cli.output import Column, Out, age, dump, millis, part_text, render_list, table, width

COLUMNS = (
    Column("NAME", lambda r: str(r["name"]), style=lambda _: "ok"),
    Column("COUNT", lambda r: str(r["count"]), right=True),
    Column("LABELS", lambda r: str(r.get("labels", "")), wide=True),
)
RECORDS = [{"name": "orders", "count": 7}, {"name": "日本", "count": 1234, "labels": "a=b"}]

scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(), st.text())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
record = st.fixed_dictionaries(
    {"name": st.text(min_size=1), "count": st.integers()}, optional={"more": values}
)


def said(value: Any) -> Any:
    """What JSON can say of ``value``: infinite numbers and what is none are null."""
    if isinstance(value, dict):
        return {key: said(each) for key, each in value.items()}
    if isinstance(value, list):
        return [said(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(text: str) -> Any:
    """What a reader of JSON makes of ``text`` that takes none of Python's own words (`NaN`, `Infinity`)."""

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def rendered(records: list[Any], fmt: Format, **options: Any) -> str:
    """A list of ``records`` in a form."""
    return render_list(records, COLUMNS, fmt, name=lambda r: str(r["name"]), **options)


@pytest.mark.parametrize(
    ("fmt", "expected"),
    [
        (Format.JSON, "[]"),
        (Format.YAML, "[]"),
        (Format.JSONL, ""),
        (Format.NAME, ""),
        (Format.TABLE, ""),
    ],
)
def test_nothing_is_valid_in_every_form(fmt: Format, expected: str) -> None:
    """A list without elements is an empty array where a program reads it, and no text elsewhere."""
    assert rendered([], fmt) == expected


@given(st.lists(record, max_size=4), st.booleans())
@example([{"name": "a", "count": 1, "more": [math.inf, {"b": -math.inf}, math.nan, 1e308]}], True)
def test_json_is_an_array_of_the_records(records: list[Any], pretty: bool) -> None:
    """JSON lists are top-level arrays with exactly the records, indented or not. Numbers that JSON has no word for are
    null, so that any reader can read the rest."""
    assert read(rendered(records, Format.JSON, pretty=pretty)) == said(records)


@given(st.lists(record, min_size=1, max_size=4))
@example([{"name": "a", "count": 1, "more": math.inf}, {"name": "b", "count": 2, "more": math.nan}])
def test_jsonl_is_one_object_a_line(records: list[Any]) -> None:
    """However odd the texts inside, there are as many lines as records."""
    lines = rendered(records, Format.JSONL).split("\n")
    assert [read(line) for line in lines] == said(records)


@given(values)
@example([math.inf, {"a": math.nan}])
@example({"\x85": None, "\u2028a": ["\u2029", "\x85 b"]})
def test_yaml_says_what_json_says(value: Any) -> None:
    """YAML shows the same value, null for the same numbers included."""
    assert yaml.safe_load(dump(value, Format.YAML)) == read(dump(value, Format.JSON)) == said(value)


@given(st.text())
@example("a\u202eb\x9b31m\x7f\u2066")
@example("\\u202e")
def test_no_form_of_data_drives_the_terminal(text: str) -> None:
    """What anybody wrote is the same value when it is read, and no control character on the way."""
    for fmt in (Format.JSON, Format.JSONL, Format.YAML):
        shown = dump({"text": text, text: 1}, fmt)
        found = yaml.safe_load(shown) if fmt is Format.YAML else read(shown)
        assert found == {"text": text, text: 1}
        assert not {char for char in shown if unicodedata.category(char) == "Cc"} - {"\n"}
        assert not set(shown) & set(
            "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
        )


def test_notes_cannot_drive_the_terminal() -> None:
    """A message may quote what came over the bus: its colours and line ends are this program's, all else is not."""
    err = io.StringIO()
    Out(io.StringIO(), err).note("\x1b[31mred\x1b[0m \x1b[2J\u202e\x9b31m\x07\r\n  second\tline")
    assert err.getvalue() == "\x1b[31mred\x1b[0m  [2J  31m  \n  second\tline\n"


def test_names_stand_alone() -> None:
    """-o name prints what the next command takes, and nothing else."""
    assert rendered(RECORDS, Format.NAME) == "orders\n日本"


def test_names_cannot_drive_the_terminal() -> None:
    """Nor add lines: what stands on the bus may be anybody's."""
    odd = [{"name": "a\x1b[2J\nb\u202e", "count": 1}]
    assert rendered(odd, Format.NAME) == "a [2J b"


def test_table_is_aligned_by_cells() -> None:
    """Numbers to the right, wide characters take two cells, wide columns only when asked for."""
    lines = rendered(RECORDS, Format.TABLE).split("\n")
    assert lines == ["NAME    COUNT", "orders      7", "日本     1234"]
    assert "LABELS" not in lines[0]
    assert "LABELS" in rendered(RECORDS, Format.WIDE)
    assert len({width(line) for line in lines}) == 1


def test_colour_is_written_only_where_wanted() -> None:
    """Escape codes appear with colour and never without."""
    assert "\x1b[" not in table(RECORDS, COLUMNS)
    coloured = table(RECORDS, COLUMNS, color=True)
    assert "\x1b[32morders\x1b[0m" in coloured


@given(st.text())
def test_cells_cannot_drive_the_terminal(name: str) -> None:
    """What comes from the bus stays on its line and sends no control characters."""
    shown = table([{"name": name, "count": 1}], COLUMNS).split("\n")
    assert len(shown) == 2
    assert all(c.isprintable() for c in shown[1])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.4, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (310, "5m10s"),
        (3600, "1h"),
        (11_100, "3h5m"),
        (200_000, "2d"),
    ],
)
def test_age(seconds: float | None, shown: str) -> None:
    """Ages have one or two units."""
    assert age(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.00042, "420 µs"),
        (0.0042, "4.20 ms"),
        (0.0123, "12.3 ms"),
        (0.25, "250 ms"),
        (1.25, "1.25 s"),
        (99.6, "99.6 s"),
        (1000.0, "16.7 m"),
    ],
)
def test_millis(seconds: float | None, shown: str) -> None:
    """Durations keep three digits: what was measured, and no more."""
    assert millis(seconds) == shown


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("2s", 2), ("1.5m", 90), ("1h", 3600), (" 3 ", 3), (".5", 0.5)]
)
def test_duration(text: str, seconds: float) -> None:
    """Units are ms, s, m and h; without one it is seconds."""
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1", "0", "1d", "nan", "inf", "1e3", "25h", "1 2", "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Nothing, nothing positive, nothing finite, nothing sane: a usage error with an example."""
    with pytest.raises(CliError) as caught:
        duration(text)
    assert "250ms" in caught.value.hint


def test_errors_go_to_stderr_as_text_or_json() -> None:
    """One line and a hint for people; one object for programs; nothing on stdout."""
    stdout, stderr = io.StringIO(), io.StringIO()
    out = Out(stdout, stderr)
    out.error(CliError("no \x1b[31mway", hint="turn\nround", code=4))
    assert stderr.getvalue() == "error: no [31mway\nhint: turn\n  round\n"
    out.error(CliError("no", code=3, document={"status": "UNAVAILABLE"}), Format.JSON)
    fields = json.loads(stderr.getvalue().splitlines()[-1])["error"]
    assert fields == {"message": "no", "hint": "", "exit_code": 3, "status": "UNAVAILABLE"}
    stderr.truncate(0)
    stderr.seek(0)
    out.error(CliError("no", hint="- maybe: later", code=3), Format.YAML)
    assert yaml.safe_load(stderr.getvalue())["error"] == {
        "message": "no",
        "hint": "- maybe: later",
        "exit_code": 3,
    }
    assert stdout.getvalue() == ""


def test_a_part_is_neither_none_nor_all() -> None:
    """Where it is not, rounding does not make it so."""
    shares = [0.0, 1 / 550, 0.0001, 0.5, 549 / 550, 0.9999, 1.0]
    assert [part_text(each) for each in shares] == ["0%", "0.2%", "<0.1%", "50.0%", "99.8%", ">99.9%", "100%"]
