"""Which calls an observer hears of, and what of them it may see: filters, hidden values, bodies."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.envelope import HIDDEN, MAX_VALUE, kept_headers, small
from nats_mesh.core.redact import Redactor, parse_path
from nats_mesh.core.tap_filter import Filter, Tappable
from nats_mesh.telemetry.tap_bodies import MAX_LOOK, Bodies
from nats_mesh.telemetry.tap_messages import MAX_BODY, Body
from nats_mesh.wire.codecs import JSON, MSGPACK, RAW, Codec

CARD = "4929-1234-5678-9012"


def ended(**fields: Any) -> Tappable:
    """A call that has ended."""
    headers = fields.pop("headers", ())
    usual = {"endpoint": "place", "caller": "web", "route": "all", "status": "OK", "duration_s": 0.05}
    return Tappable(headers=lambda: headers, **{**usual, **fields})


# -- filters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "good", "bad"),
    [
        (Filter(endpoints=("place", "pay")), {}, {"endpoint": "list"}),
        (Filter(callers=("web",)), {}, {"caller": "batch"}),
        (Filter(routes=("v2",)), {"route": "v2"}, {}),
        (Filter(statuses=("INTERNAL", "ABORTED")), {"status": "ABORTED"}, {"status": "NOT_FOUND"}),
        (Filter(failed=True), {"status": "NOT_FOUND"}, {}),
        (Filter(slow_s=0.1), {"duration_s": 0.1}, {"duration_s": 0.0999}),
        (
            Filter(headers=(("tenant", "acme"),)),
            {"headers": (("tenant", "other"), ("tenant", "acme"))},
            {"headers": (("tenant", "acme2"),)},
        ),
        (Filter(callers=("web",), failed=True), {"status": "UNKNOWN"}, {"status": "UNKNOWN", "caller": "x"}),
    ],
)
def test_every_part_of_a_filter_must_hold(only: Filter, good: dict[str, Any], bad: dict[str, Any]) -> None:
    """Of several names in one part, one is enough; a header that comes twice has both values."""
    assert only.admits(ended(**good))
    assert not only.admits(ended(**bad))
    assert not only.is_empty


def test_a_filter_that_says_nothing_admits_every_call() -> None:
    """And asks for no headers."""
    assert Filter().is_empty
    assert Filter().admits(msgspec.structs.replace(ended(), headers=lambda: pytest.fail("not needed")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorization", "Bearer abcdefgh1234"),
        ("x-api-key", "k"),
        ("card", CARD),
        ("x", "Bearer abcdefgh1234"),
    ],
)
def test_nobody_finds_out_a_secret_by_asking_for_it(name: str, value: str) -> None:
    """A value that is not shown matches no filter: neither itself nor what stands in its place."""
    shown, _ = kept_headers([(name, value)], None, {"card"})
    assert shown == ((name, HIDDEN),)
    for guess in (value, HIDDEN):
        assert not Filter(headers=((name, guess),)).admits(ended(headers=shown))


def test_a_value_that_was_cut_matches_nothing() -> None:
    """Nobody knows what it was."""
    shown, _ = kept_headers([("a", "x" * 1000)], None)
    assert len(shown[0][1]) == MAX_VALUE
    assert not Filter(headers=(("a", shown[0][1]),)).admits(ended(headers=shown))


# -- hidden values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("card.number", {"card": {"number": 1, "name": "n"}}, {"card": {"number": HIDDEN, "name": "n"}}),
        ("card", {"card": {"number": 1}, "other": 2}, {"card": HIDDEN, "other": 2}),
        ("items.sku", {"items": [{"sku": 1}, {"n": 3}]}, {"items": [{"sku": HIDDEN}, {"n": 3}]}),
        ("sku", [[{"sku": 1}], {"sku": 2}], [[{"sku": HIDDEN}], {"sku": HIDDEN}]),
        ("*.sku", {"a": {"sku": 1}, "sku": 2}, {"a": {"sku": HIDDEN}, "sku": 2}),
        ("**.sku", {"a": {"b": {"sku": 1}}, "sku": 2}, {"a": {"b": {"sku": HIDDEN}}, "sku": HIDDEN}),
        ("a.**.sku", {"a": {"sku": 1}, "sku": 2}, {"a": {"sku": HIDDEN}, "sku": 2}),
        ("a.**.*", {"a": {"b": {"c": 1}}, "d": 2}, {"a": {"b": HIDDEN}, "d": 2}),
        ("7", {7: "x", "8": "y"}, {7: HIDDEN, "8": "y"}),
        ("nowhere.at.all", {"a": 1}, {"a": 1}),
    ],
)  # fmt: skip
def test_values_are_hidden_by_their_paths(path: str, value: Any, shown: Any) -> None:
    """Whole, in lists without a step of their own; what is looked at stays as it was."""
    before = json.dumps(value)
    assert Redactor([parse_path(path)]).shown(value) == shown
    assert json.dumps(value) == before


@pytest.mark.parametrize(
    "value",
    [
        {"password": CARD},
        {"a": [{"apiToken": {"deep": CARD}}]},
        {"note": f"Bearer {CARD}"},
        [f"basic {CARD}"],
    ],
)
def test_what_looks_like_a_secret_is_hidden_without_a_policy(value: Any) -> None:
    """By the name it stands under, or by what it is."""
    redactor = Redactor()
    assert CARD not in json.dumps(redactor.shown(value))
    assert redactor.hidden == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [("", "1 to 256"), ("a..b", "'' is no step"), ("a b", "is no step"), ("items[0]", "is no step"),
     ("$.a", "is no step"), ("**", "would hide everything"), ("**.**", "would hide everything"),
     (".".join("a" * 17), "17 steps"),
     ("a" * 257, "1 to 256"), ("a.b*", "is no step")],
)  # fmt: skip
def test_a_path_that_means_nothing_is_refused(path: str, text: str) -> None:
    """Where it is written, and not by hiding nothing."""
    with pytest.raises(ValueError, match=text.replace("*", r"\*")):
        parse_path(path)


_names = st.sampled_from(["a", "b", "sku", "7"])
_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(CARD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=20,
)


@given(value=_values, steps=st.lists(_names | st.sampled_from(["*", "**"]), min_size=1, max_size=4))
def test_nothing_under_a_path_is_ever_shown(value: Any, steps: list[str]) -> None:
    """Compared with walking every way there is through the value, step by step."""
    if all(step == "**" for step in steps):
        steps = [*steps, "sku"]
    shown = Redactor([parse_path(".".join(steps))]).shown(value)

    def leads(way: tuple[str, ...], left: tuple[str, ...]) -> bool:
        if not left:
            return True  # here, or above: what is hidden is hidden whole
        if left[0] == "**":
            return leads(way, left[1:]) if not way else leads(way, left[1:]) or leads(way[1:], left)
        return bool(way) and left[0] in ("*", way[0]) and leads(way[1:], left[1:])

    def check(before: Any, after: Any, way: tuple[str, ...]) -> None:
        if way and leads(way, tuple(steps)):
            assert after == HIDDEN
        elif isinstance(before, dict):
            for key in before:
                check(before[key], after[key], (*way, key))
        elif isinstance(before, list):
            for one, other in zip(before, after, strict=True):
                check(one, other, way)
        else:
            assert after == before

    check(value, shown, ())


# -- bodies -------------------------------------------------------------------------------------------


def shown_body(data: bytes, codec: Codec | None, limit: int, *fields: str) -> Body:
    """A body under hidden ``fields``, shown by what has shown nothing else."""
    return Bodies(fields).show(data, codec, limit)


def test_a_body_is_shown_on_one_line_and_cut() -> None:
    """As compact JSON, whichever codec it came in."""
    value = {"sku": "b-17", "text": "a\nb\u2028c", "n": [1, 2]}
    for codec in (JSON, MSGPACK, None):
        data = msgspec.msgpack.encode(value) if codec is MSGPACK else msgspec.json.encode(value)
        body = shown_body(data, codec, 100)
        assert (body.form, body.cut, body.hidden) == ("json", False, 0)
        assert json.loads(body.text) == value
        assert body.text.isprintable()
    cut = shown_body(b'"' + b"x" * 500 + b'"', JSON, 100)
    assert (len(cut.text), cut.cut) == (100, True)


def test_secrets_are_hidden_before_a_body_is_cut() -> None:
    """However they are written: an escape hides no name, and a cut shows no half of a value."""
    data = b'{"\\u0070assword": "%s", "card": {"number": "%s"}}' % (CARD.encode(), CARD.encode())
    body = Bodies(("card.number",)).show(data, JSON, 8000)
    assert json.loads(body.text) == {"password": HIDDEN, "card": {"number": HIDDEN}}
    assert body.hidden == 2
    assert CARD[:4] not in shown_body(data, JSON, 40, "card.number").text


@pytest.mark.parametrize(
    "data", [b"{half", b"\xff\xfe", b"[" * 5000, b"\x81\xa1a", b'{"a":1} '.replace(b" ", b"x")]
)
def test_what_cannot_be_decoded_is_withheld_where_fields_are_hidden(data: bytes) -> None:
    """Nobody knows what is in it."""
    for codec in (JSON, MSGPACK, RAW, None):
        assert Bodies(("card.number",)).show(data, codec, 100) == Body(withheld="unreadable")


def test_without_hidden_fields_it_is_shown_as_text_or_bytes() -> None:
    """A credential in a text hides all of it."""
    assert shown_body(b"plain\r\ntext\x1b[2J", None, 100) == Body(text="plain text [2J", form="text")
    assert shown_body(b"Authorization: Bearer abcdefgh1234", RAW, 100) == Body(
        text=HIDDEN, form="text", hidden=1
    )
    body = shown_body(b"\xff" * 500, RAW, 100)
    assert (body.form, body.cut, base64.b64decode(body.text)) == ("base64", True, b"\xff" * 75)
    assert shown_body(b"", JSON, 100) == Body(form="text")


@pytest.mark.parametrize(
    "data",
    [
        b'{"password":"%s"}\n{"a":1}',
        b'{"password":"%s",}',
        b'{"password":"%s\xff"}',
        b"user=a&password=%s&x=1",
        b"api-key: %s",
        b"<password>%s</password>",
    ],
)
def test_secrets_of_what_cannot_be_decoded_are_hidden_by_their_names(data: bytes) -> None:
    """With all that stands around them: nobody knows where they end."""
    for codec in (JSON, MSGPACK, RAW, None):
        body = shown_body(data % CARD.encode(), codec, 1000)
        assert (body.text, body.hidden) == (HIDDEN, 1)


def test_secrets_are_found_in_whatever_a_value_or_a_name_is_written() -> None:
    """MessagePack has bytes where texts stand elsewhere, and a document may stand in a text."""
    for value in (
        {b"card": {b"number": CARD}},
        {"a": f"Bearer {CARD}".encode()},
        {f"Bearer {CARD}": 1},
        {"a": json.dumps({"password": CARD})},
    ):
        body = shown_body(msgspec.msgpack.encode(value), MSGPACK, 1000, "card.number")
        assert body.form == "json"
        assert body.hidden
        assert CARD not in body.text
        assert base64.b64encode(CARD.encode()).decode()[:8] not in body.text
    harmless = {"a": "see [1]", "b": '{"n":1}', "c": b"\x00\xff"}
    assert shown_body(msgspec.msgpack.encode(harmless), MSGPACK, 1000).hidden == 0


def test_what_is_large_is_not_looked_at() -> None:
    """Nor shown: to search it would hold up the calls that come after."""
    assert shown_body(b'"' + b"x" * MAX_LOOK + b'"', JSON, 100) == Body(withheld="too-large")


@given(
    st.binary(max_size=200) | st.recursive(st.text(), st.lists).map(msgspec.json.encode),
    st.integers(1, MAX_BODY),
)
def test_whatever_a_body_is_it_can_be_told(data: bytes, limit: int) -> None:
    """Within the bounds that a reader checks."""
    for codec in (JSON, MSGPACK, RAW, None):
        body = shown_body(data, codec, limit)
        assert len(body.text) <= limit
        assert msgspec.json.decode(msgspec.json.encode(body), type=Body) == body


_WORDS = st.sampled_from(
    ["auth", "Author", "cookie", "tOKen", "passw", "key", "bearer ", "Basic ", "digest  ", "eyJhbGciOi", "aaaaaaaaa",
     ".", "-", "=", ":", '"', "{", "[", " ", "\n", "ß", "\u017f", "\u0131", "\u0130", "\u212a"]
)  # fmt: skip
_TEXTS = st.lists(_WORDS, max_size=6).map("".join)
_DOCUMENTS = st.recursive(
    _TEXTS | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=10,
)


@given(_DOCUMENTS)
def test_to_know_the_whole_text_changes_nothing_of_what_is_hidden(document: Any) -> None:
    """It only says where nothing needs to be looked for."""
    redactor = Redactor([parse_path("auth.key"), parse_path("**.aaaaaaaaa.*")])
    shown = redactor.shown(document)
    hidden = redactor.hidden
    assert redactor.shown(document, json.dumps(document, ensure_ascii=False)) == shown
    assert redactor.hidden == hidden


def test_no_letter_hides_a_secret_from_us() -> None:
    """What a pattern that ignores case takes for a letter of a word is that letter in small ones."""
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    taken = re.findall("[a-z ]", every, re.IGNORECASE)
    assert len(taken) > 53
    assert {small(letter) for letter in taken} == set("abcdefghijklmnopqrstuvwxyz ")


def test_paths_are_looked_up_by_name_and_not_one_by_one() -> None:
    """Many names under many paths come to few places: each body's size alone says what it costs."""
    redactor = Redactor([parse_path(f"**.a{number}.b") for number in range(64)])
    document = {f"n{number}": {"x": {f"m{number}": 1}} for number in range(2000)}
    assert redactor.shown(document) == document
    assert len(redactor._begin._by_name) == 1
