"""Reading YAML and JSON: plain values with their lines, and nothing that a file says can do harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from nats_mesh.policy import reader
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.reader import MAX_BYTES, MAX_DEPTH, MAX_VALUES, Node, read

LOADERS = [yaml.BaseLoader, *([yaml.CBaseLoader] if yaml.__with_libyaml__ else [])]


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__, autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule holds with PyYAML's own parser and with libyaml's."""
    monkeypatch.setattr(reader, "_LOADER", request.param)


def documents(text: str | bytes, file: str = "x.yaml") -> list[Node]:
    """What ``text`` holds, which must be in order."""
    problems = Problems()
    found = list(read(text.encode() if isinstance(text, str) else text, file, problems))
    problems.raise_if_any()
    return found


def complaint(text: str | bytes, file: str = "x.yaml") -> str:
    """What is wrong with ``text``."""
    problems = Problems()
    list(read(text.encode() if isinstance(text, str) else text, file, problems))
    return str(problems.error())


def test_every_key_and_item_knows_its_line() -> None:
    """Lines count from 1; a key has its own, which may not be that of its value."""
    first, second = documents("# about\na: 1\nb:\n  - x\n  - c:\n      2\n---\nd: e\n")
    assert first.plain() == {"a": 1, "b": ["x", {"c": 2}]}
    assert isinstance(first.value, dict)
    assert first.key_lines == {"a": 2, "b": 3}
    items = first.value["b"].value
    assert isinstance(items, list)
    assert [item.line for item in items] == [4, 5]
    assert items[1].key_lines == {"c": 5}
    assert second.line == 8


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"), ("yes", "yes"), ("no", "no"), ("on", "on"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("''", ""), ("'true'", "true"), ('"5"', "5"),
        ("5", 5), ("-5", -5), ("+5", 5), ("007", 7), ("0x1f", "0x1f"), ("1_000", "1_000"), ("9" * 19, 1e19),
        ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), (".inf", ".inf"), (".nan", ".nan"), ("5s", "5s"), ("10%", "10%"),
        ("!!str 5", "5"), ("|\n  5\n", "5\n"),
    ],
)  # fmt: skip
def test_plain_words_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    """Words such as `off` and `yes` are text, numbers are decimal, quoted words are always text."""
    assert documents(f"a: {text}")[0].plain() == {"a": value}


def test_empty_documents_are_left_out() -> None:
    """Comments alone, and nothing between two separators, are no documents."""
    assert documents("") == documents("# nothing\n") == documents("---\n---\n# here\n---\n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: the key 'a' stands here twice, first in line 1; keep one of them"),
        ("a:\n  b: 1\n  b: {c: 1}\n", "x.yaml:3: the key 'b' stands here twice, first in line 2"),
        ("a: [1, 2\nb: 3\n", "is no valid YAML: while parsing a flow sequence"),
        ("a: 1\n b: 2\n", "x.yaml:2: is no valid YAML: mapping values are not allowed"),
        ("a:\n\t- b\n", "x.yaml:2: is no valid YAML: while scanning"),
        ("a:\n\t- b\n", "indent with blanks, not with tabs"),
        ("a: 1\nb: \x07\n", "x.yaml:2: is no valid YAML: unacceptable character #x0007"),
        (b"a: 1\nb: \xff\n", "x.yaml:2: is no UTF-8 text (byte 8)"),
        ("a: !!python/object/apply:os.system [ls]", "x.yaml:1: the tag 'tag:yaml.org,2002:python/"),
        ("a: !!int '5'", "the tag 'tag:yaml.org,2002:int' is not read: write the value without it"),
        ("a: !mine {b: 1}", "the tag '!mine' is not read"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "x.yaml:3: merge keys (<<) are not read: write the fields out"),
        ("a: 1\nb: *x\n", "x.yaml:2: the alias *x names no anchor above it in this document"),
        ("a: &x 1\n---\nb: *x\n", "x.yaml:3: the alias *x names no anchor above it in this document"),
        ("a: &x [*x]", "x.yaml:1: the alias *x stands inside of what it names"),
        ("a: &x b\n*x : 2\n", "x.yaml:2: a key must be text, and no alias"),
        ("? [1]\n: 2\n", "x.yaml:1: a key must be text, and neither a list nor a mapping"),
    ],
)
def test_what_cannot_be_read_is_said(text: str | bytes, message: str) -> None:
    """Every mistake names its line and what to do."""
    assert message in complaint(text)


def test_what_stands_above_a_mistake_is_still_read() -> None:
    """A file's later mistake hides nothing of the documents above it: their mistakes are wanted, too."""
    problems = Problems()
    found = list(read(b"a: 1\n---\nb: [\n", "x.yaml", problems))
    assert [node.plain() for node in found] == [{"a": 1}]
    assert len(problems) == 1


def test_an_alias_is_what_it_names() -> None:
    """Anchors serve within their document, and the line of an aliased key is where the alias stands."""
    (node,) = documents("a: &x {b: 1}\nc: *x\n")
    assert node.plain() == {"a": {"b": 1}, "c": {"b": 1}}
    assert node.key_lines == {"a": 1, "c": 2}


def test_aliases_of_aliases_have_a_limit() -> None:
    """A billion values out of twenty lines are refused by counting, before anything is expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    assert f"x.yaml:5: the document has more than {MAX_VALUES} values" in complaint("\n".join(lines))


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 1000, "[" * 1000 + "]" * 1000])
def test_nesting_has_a_limit(text: str) -> None:
    """However deep a file is nested, it is refused and never overflows a stack."""
    assert complaint(text) == f"x.yaml:1: values are nested more than {MAX_DEPTH} deep"


def test_a_document_and_a_file_have_a_size() -> None:
    """A list without end and a file without end are refused, each with its limit."""
    assert f"more than {MAX_VALUES} values" in complaint("- x\n" * (MAX_VALUES + 1))
    assert complaint(b"a" * (MAX_BYTES + 1)) == "x.yaml: is larger than 4 MiB; split it"


def test_documents_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """More documents than allowed are refused at the first that is too many."""
    monkeypatch.setattr(reader, "MAX_DOCUMENTS", 2)
    assert complaint("a: 1\n---\nb: 1\n---\nc: 1\n") == "x.yaml:5: has more than 2 documents; split it"


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
KEY = TEXT.filter(lambda key: key != "<<")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(-1e15, 1e15) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner, max_size=4),
    max_leaves=12,
)


@given(
    value=st.dictionaries(KEY, JSON, min_size=1, max_size=4),
    ascii_=st.booleans(),
)
@example({"\u2028": None}, False)
@example({"\x85\ufeff": ["a \u2029 b", "\x7f\x80\ufffe\U0010ffff"]}, False)
@example({"k" * 1025: {"\x00\t": "\U0001f600"}}, True)
def test_json_reads_as_json(value: dict[str, Any], ascii_: bool) -> None:
    """Any valid JSON means what JSON says, escapes and surrogate pairs included, and however it is indented."""
    for indent in (None, 2, "\t"):
        text = json.dumps(value, ensure_ascii=ascii_, indent=indent)
        assert documents(text, "x.json")[0].plain() == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a"\n:\r\n 1}', {"a": 1}),
        ('{\n"a":1,"b":-0.5E+1,"c":1e-999}', {"a": 1, "b": -5.0, "c": 0.0}),
        ('{"a":\n 123456789012345678901}', {"a": 123456789012345678901.0}),
        ('[true,\n"true", null, "1", {}, []]', [True, "true", None, "1", {}, []]),
        ('\n"a: {b"', "a: {b"),
    ],
)
def test_json_may_be_written_in_any_way(text: str, value: object) -> None:
    """Blanks and line ends stand wherever JSON allows them, and quoted words are text."""
    assert documents(text, "x.json")[0].plain() == value


def test_values_of_json_know_their_line() -> None:
    """As those of YAML do; what YAML takes for a line end is a character of JSON's texts."""
    (node,) = documents('{\n"a\u2028": [1,\n2], "b":\n{\n"c": 3}\n}', "x.json")
    assert isinstance(node.value, dict)
    assert node.key_lines == {"a\u2028": 2, "b": 3}
    items = node.value["a\u2028"].value
    assert isinstance(items, list)
    assert [item.line for item in items] == [2, 3]
    assert (node.value["b"].line, node.value["b"].key_lines) == (4, {"c": 5})


def test_escapes_of_json() -> None:
    """A solidus, a pair of surrogates and a backslash before a `u` are what JSON means by them."""
    (node,) = documents(r'{"a": "\/\\/\ud83d\ude00\\ud83d \u00e4\n"}', "x.json")
    assert node.plain() == {"a": "/\\/😀\\ud83d ä\n"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,}', "x.json:1: is no valid JSON"),
        ('{\n"a": 1\n', "x.json:3: is no valid JSON"),
        ("a: 1", "x.json:1: is no valid JSON: Expecting value"),
        ('{"a": 1,\n"a": 2}', "x.json:2: the key 'a' stands here twice"),
        ('{"a":\n NaN}', "x.json:2: is no valid JSON: NaN is no number there"),
        ('{"a": -Infinity}', "x.json:1: is no valid JSON: -Infinity is no number there"),
        ('{"a":\n 1e999}', "x.json:2: has a number that is too large: 1e999"),
        ('{"a": 1e999}', "x.json:1: has a number that is too large: 1e999"),
        ('{"a":\n "\\ud800x"}', "x.json:2: has half of a surrogate pair in a text"),
        ('{"a": "\\ud800x"}', "x.json:1: has half of a surrogate pair in a text"),
        ('{"\\udc00": 1}', "x.json:1: has half of a surrogate pair in a text"),
        ("[" * 200_000, "nested too deep"),
        ("[" * 500 + "]" * 500, f"nested more than {MAX_DEPTH} deep"),
    ],
)
def test_json_mistakes(text: str, message: str) -> None:
    """A `.json` file is held to JSON, and what YAML would forgive is said."""
    assert message in complaint(text, "x.json")


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever stands in a file, it is read or it is a problem with a line; nothing is raised."""
    for file in ("x.yaml", "x.json"):
        problems = Problems()
        list(read(text.encode("utf-8", "surrogatepass"), file, problems))
        error = problems.error()
        assert error is None or file in str(error)


PIECES = [
    "a: ", "- ", "[", "]", "{", "}", ",", "&x ", "*x ", "\n", "  ", "1", "---\n", "? ", ": ", "'", '"', "|", "!t ",
    "#", "<<: ",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_no_yaml_breaks_the_reader(pieces: list[str]) -> None:
    """The same for text made of what YAML is made of."""
    problems = Problems()
    found = list(read("".join(pieces).encode(), "x.yaml", problems))
    assert all(isinstance(node.plain(), object) for node in found)
