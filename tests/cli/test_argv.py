"""Putting a command line in order: global options anywhere, nothing else touched."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh_cli.argv import Level, arrange, level_of
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.main import app

ROOT = Level(
    {"--output": 1, "-o": 1, "--namespace": 1, "-n": 1, "--no-color": 0, "--help": 0},
    {
        "call": Level({"--help": 0, "--header": 1, "-H": 1, "--count": 1, "--raw": 0, "-w": 0, "--pair": 2}),
        "policy": Level({"--all": 0}, {"apply": Level({"--prune": 0, "-f": 1})}),
    },
)


def in_order(line: str) -> list[str]:
    """The words of ``line``, arranged."""
    return arrange(line.split(), ROOT)


@pytest.mark.parametrize(
    ("given_line", "expected"),
    [
        ("call a.b", "call -- a.b"),
        ("call a.b -o json", "-o json call -- a.b"),
        ("-o json call a.b", "-o json call -- a.b"),
        ("call -n x a.b --no-color 1", "-n x --no-color call -- a.b 1"),
        ("call a.b -1", "call -- a.b -1"),
        ("call a.b -.5 -o yaml", "-o yaml call -- a.b -.5"),
        ("call a.b - -o yaml", "-o yaml call -- a.b -"),
        ("call a.b -- -o json", "call -- a.b -o json"),
        ("call a.b -H -o -n x", "-n x call -H -o -- a.b"),
        ("call a.b -ojson", "-o json call -- a.b"),
        ("call -won x a.b", "-o n call -w -- x a.b"),
        ("call --output=json a.b", "--output=json call -- a.b"),
        ("call --header=-n a.b", "call --header=-n -- a.b"),
        ("call --pair -o -n a.b", "call --pair -o -n -- a.b"),
        ("policy apply -f x --all -o json", "-o json policy --all apply -f x"),
        ("call -o json a.b -o yaml", "-o json -o yaml call -- a.b"),
        ("call --help", "call --help"),
        ("", "--help"),
        ("policy", "policy --help"),
        ("policy --all -n x", "-n x policy --all --help"),
        ("policy -- apply", "policy -- apply"),
        ("--help", "--help"),
    ],
)
def test_order(given_line: str, expected: str) -> None:
    """Globals come first, a command's own options behind its name, all else behind ``--``."""
    assert in_order(given_line) == expected.split()


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("cal a.b", "no command 'cal'", "did you mean 'call'?"),
        ("policy aply", "no command 'policy aply'", "did you mean 'apply'?"),
        ("call a.b --namspace x", "no option --namspace", "did you mean '--namespace'?"),
        ("call a.b -x", "no option -x", "see 'nats-mesh call --help'"),
        ("call a.b -wx", "no option -x in -wx", "see 'nats-mesh call --help'"),
        ("call a.b -o", "option -o needs a value", "see 'nats-mesh call --help'"),
        ("call -n -- a.b", "option -n needs a value", "see 'nats-mesh call --help'"),
    ],
)
def test_mistakes_are_named_with_the_nearest(line: str, said: str, hint: str) -> None:
    """Unknown words and missing values are usage errors that say what was probably meant."""
    with pytest.raises(CliError) as caught:
        in_order(line)
    assert said in caught.value.message
    assert caught.value.hint == hint
    assert caught.value.code == 2


text = st.text(min_size=1, max_size=8)
value = text.filter(lambda v: v != "--")
plain = st.one_of(text.filter(lambda v: not v.startswith("-")), st.integers().map(str), st.just("-"))
global_option = st.one_of(
    st.tuples(st.sampled_from(["-o", "--output", "-n", "--namespace"]), value).map(list),
    st.just(["--no-color"]),
)
own_option = st.one_of(
    st.tuples(st.sampled_from(["-H", "--header", "--count"]), value).map(list),
    st.sampled_from([["--raw"], ["-w"]]),
    st.tuples(st.just("--pair"), value, value).map(list),
)
item = st.one_of(
    st.tuples(st.just("global"), global_option),
    st.tuples(st.just("own"), own_option),
    st.tuples(st.just("argument"), plain.map(lambda v: [v])),
)


@given(st.lists(item, max_size=8), st.lists(global_option, max_size=3), st.lists(text, max_size=3))
def test_any_mixture_parses_as_if_globals_stood_in_front(
    items: list[tuple[str, list[str]]], before: list[list[str]], behind: list[str]
) -> None:
    """Whatever the mixture: every token keeps its role, its order within that role, and its spelling."""
    line = [token for option in before for token in option] + ["call"]
    line += [token for _, tokens in items for token in tokens]
    line += ["--", *behind] if behind else []

    def of(role: str) -> list[str]:
        return [token for kind, tokens in items if kind == role for token in tokens]

    arguments = of("argument") + behind
    expected = [t for option in before for t in option] + of("global") + ["call"] + of("own")
    assert arrange(line, ROOT) == expected + (["--", *arguments] if arguments else [])


@given(st.lists(item, max_size=6), st.lists(text, max_size=2))
def test_ordering_twice_changes_nothing(items: list[tuple[str, list[str]]], behind: list[str]) -> None:
    """What is in order stays as it is."""
    line = ["call", *(token for _, tokens in items for token in tokens), *(["--", *behind] if behind else [])]
    once = arrange(line, ROOT)
    assert arrange(once, ROOT) == once


@given(st.lists(text, max_size=8))
def test_any_line_is_ordered_or_refused(line: list[str]) -> None:
    """No line is too odd: the result is an order or a usage error."""
    try:
        arranged = arrange(line, ROOT)
    except CliError:
        return
    assert arrange(arranged, ROOT) == arranged


def test_the_real_commands_yield_their_tables() -> None:
    """The tables come from typer itself: flags take no value, options one, short and long names alike."""
    command: Any = typer.main.get_command(app)
    root = level_of(command)
    assert {"call", "get", "describe", "check", "bench", "run", "up", "demo"} <= set(root.children)
    assert root.options["-n"] == root.options["--namespace"] == 1
    assert root.options["--version"] == root.options["--help"] == 0
    call = root.children["call"].options
    assert (call["-H"], call["--raw"], call["--count"]) == (1, 0, 1)
