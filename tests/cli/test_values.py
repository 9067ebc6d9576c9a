"""Values, headers and targets as typed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.values import check_codec_name, parse_headers, parse_target, read_value


def test_a_value_is_json_from_argument_stdin_or_file(tmp_path: Path) -> None:
    """The three places a value can come from, and none."""
    file = tmp_path / "v.json"
    file.write_text('{"a": [1]}', encoding="utf-8")
    assert read_value("-1.5", raw=False) == -1.5
    assert read_value("-", raw=False, stdin=io.BytesIO(b"[true]")) == [True]
    assert read_value(f"@{file}", raw=False) == {"a": [1]}
    assert read_value(None, raw=False) is None
    assert read_value("null", raw=False) is None


def test_raw_bytes_are_left_alone() -> None:
    """--raw parses nothing, not even what is no text."""
    assert read_value("-", raw=True, stdin=io.BytesIO(b"\xff\x00")) == b"\xff\x00"
    assert read_value("{bad", raw=True) == b"{bad"


@pytest.mark.parametrize(
    ("text", "hint"),
    [("hello", "quotes"), ("{", "quotes"), ("", "leave the value out"), ("[" * 100_000, "quotes")],
)
def test_what_is_not_json_is_refused(text: str, hint: str) -> None:
    """Bad input is exit code 2 with a hint, and never a traceback."""
    with pytest.raises(CliError) as caught:
        read_value(text, raw=False)
    assert caught.value.code == 2
    assert hint in caught.value.hint


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing files and folders are said as such."""
    with pytest.raises(CliError, match="No such file"):
        read_value(f"@{tmp_path / 'none'}", raw=False)
    with pytest.raises(CliError, match="Is a directory"):
        read_value(f"@{tmp_path}", raw=False)


def test_headers_keep_every_value() -> None:
    """Repeated keys add up; only the first '=' divides."""
    headers = parse_headers(["a=1", "a=2=3", "empty="])
    assert headers.pairs() == [("a", "1"), ("a", "2=3"), ("empty", "")]


@pytest.mark.parametrize("item", ["novalue", "Mesh-Attempt=3", "nats-x=1", "a b=1", "=1", "a=x\r\ny: z"])
def test_headers_that_cannot_be_sent_are_refused(item: str) -> None:
    """No '=', the mesh's own names, odd names, and anything that could forge a line."""
    with pytest.raises(CliError) as caught:
        parse_headers([item])
    assert caught.value.code == 2


def test_targets() -> None:
    """service.endpoint, or a plain subject, which belongs to no service."""
    assert parse_target("orders.place") == ("orders", "place")
    assert parse_target("nats://legacy.do") == ("", "")
    for wrong in ("orders", ".place", "orders.", ""):
        with pytest.raises(CliError, match=r"SERVICE\.ENDPOINT|names no endpoint"):
            parse_target(wrong)


def test_codecs() -> None:
    """json and msgpack; raw bytes have an option of their own, typos a suggestion."""
    assert check_codec_name("msgpack") == "msgpack"
    with pytest.raises(CliError) as caught:
        check_codec_name("bytes")
    assert "--raw" in caught.value.hint
    with pytest.raises(CliError) as caught:
        check_codec_name("mspack")
    assert caught.value.hint == "did you mean 'msgpack'?"
