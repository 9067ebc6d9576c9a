"""Names that nobody has: one rule for all commands that only read, and what waits goes on."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import Shop
from tests.cli.program import run_cli
from tests.tools import ROOT


def test_a_name_that_is_not_there_is_one_answer(shop: Shop) -> None:
    """Exit code 1, nothing on stdout, and the nearest name, whatever is asked and in whatever form."""
    lines = [
        ["slow", "ordrs"],
        ["slow", "ordrs", "-o", "json"],
        ["slow", "orders.plce"],
        ["events", "ordrs"],
        ["trace", "--service", "ordrs"],
        ["alerts", "ordrs"],
        ["stat", "ordrs", "--window", "2s"],
        ["edges", "ordrs", "--window", "2s"],
        ["describe", "ordrs"],
        ["get", "services", "ordrs"],
        ["log-level", "ordrs", "debug"],
        ["fault", "ordrs", "--clear"],
    ]
    for line, done in zip(lines, shop.many(*lines), strict=True):
        if "json" not in line:
            assert done.out == "", line
        assert done.code == 1, line
        assert re.search("did you mean '(orders|orders.place)'", done.err), (line, done.err)


def test_who_is_there_and_has_nothing_to_say_is_no_error(shop: Shop) -> None:
    """A service without slow calls, events or traces is there all the same."""
    for done in shop.many(
        ["slow", "orders"],
        ["slow", "orders.place"],
        ["events", "orders"],
        ["trace", "--service", "stock"],
        ["alerts", "stock"],
    ):
        assert done.code == 0, done.err


def test_a_level_has_near_names(shop: Shop) -> None:
    """As services have; a level that is none is a mistake of usage."""
    done = shop("log-level", "orders", "debgu")
    assert (done.code, done.out) == (2, "")
    assert "did you mean 'debug'?" in done.err


@pytest.mark.parametrize(
    "line",
    [
        ("tap", "ordrs"),
        ("slow", "ordrs", "-f"),
        ("events", "ordrs", "-f"),
        ("stat", "ordrs", "--watch", "-o", "jsonl"),
        ("trace", "--service", "ordrs", "--watch"),
    ],
)
def test_what_waits_says_so_and_goes_on(shop: Shop, line: tuple[str, ...]) -> None:
    """A name may come later: that nobody has it now is said at once, with the nearest."""
    with shop.background(*line) as waiting:
        waiting.wait_for("did you mean 'orders'?")
        assert waiting.interrupt() in (0, 1, 130)


def test_nobody_to_ask_is_exit_code_3() -> None:
    """Every reading command says so where no server can be reached, `why` without files as well."""
    for line in (["why", "orders.place"], ["slow", "orders"], ["stat"], ["alerts"], ["events"], ["trace"]):
        done = run_cli(*line, env={"NATS_URL": "nats://127.0.0.1:1"})
        assert (done.code, done.out) == (3, ""), line
        assert "cannot reach nats://127.0.0.1:1" in done.err


def test_the_exit_codes_are_documented() -> None:
    """The table of the docs has every code that commands end with."""
    from nats_mesh_cli import errors

    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    codes = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", text, re.M) for code in row.split(",")}
    assert codes == {
        errors.OK, errors.FAILED, errors.USAGE, errors.BUS, errors.DENIED, errors.INTERRUPTED, errors.PIPE,
    }  # fmt: skip
    assert re.search(
        r"^\| `alerts` \| .*nothing is promised \| something fires; .*nobody watches \|$", text, re.M
    )
