"""A command line that cannot be meant so: what is said names the word, and what would do instead."""

from __future__ import annotations

import pytest

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.main import run
from nats_mesh_cli.operate import instance_of
from nats_mesh_cli.silent import Silent, after_silence, silent_error
from nats_mesh_cli.trace_finding import Found, one_of
from tests.cli.conftest import Shop
from tests.cli.infos import mesh_info


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("events --level x", "events: no option --level", "see 'nats-mesh events --help'"),
        ("bench a.b --dur 3s", "no option --dur", "did you mean '--duration'?"),
        ("events --knd x", "no option --knd", "did you mean '--kind'?"),
        ("events orders stok", "events takes SERVICE, and no more: 'stok' is left over", "one SERVICE at a time"),
        ("get instances orders stock", "get takes KIND and NAME, and no more: 'stock'", "one NAME at a time"),
        ("demo orders", "demo takes no name: 'orders' is left over", "'nats-mesh demo --help'"),
        ("bench a.b --rate x", "--rate x: a number is wanted, such as --rate 500", "bench --help"),
        ("bench a.b --rate 0", "--rate 0: 0.001 or more is wanted", "bench --help"),
        ("dashboard -p abc", "--port abc: a whole number is wanted, such as --port 8480", "dashboard --help"),
        ("stat web.buy", "'web.buy' names an endpoint", "'nats-mesh stat web --by endpoint'"),
        ("edges web.buy", "'web.buy' names an endpoint", "'nats-mesh edges web --by endpoint'"),
        ("get breakers web.buy", "'web.buy' names an endpoint", "'nats-mesh get breakers web'"),
        ("events web.buy", "'web.buy' names an endpoint", "'nats-mesh events web'"),
        ("alerts web.buy", "'web.buy' names an endpoint", "'nats-mesh alerts web'"),
        ("trace --service web.buy", "'web.buy' names an endpoint", "'nats-mesh trace --service web'"),
    ],
)  # fmt: skip
def test_a_mistake_names_what_would_do(
    line: str, said: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage errors (2), before anything is asked: the word, what is wanted, and a line or an example that works."""
    assert run(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert hint in told.err.partition("hint: ")[2]


def test_an_id_made_by_chance_is_not_guessed() -> None:
    """No id of a trace is near another one: whoever has a wrong one learns where they are listed."""
    with pytest.raises(CliError) as caught:
        one_of(Found(traces={"abcdef0124" + "0" * 22: {}}), "abcdef0123")
    assert caught.value.hint == "traces are kept for minutes; 'nats-mesh trace' lists those that are"


def test_who_names_no_instance_learns_which_there_are() -> None:
    """As a service that nobody has."""
    infos = [mesh_info("orders", "AAAA"), mesh_info("stock", "BBBB")]
    names = [f"{info.name}/{info.metadata['mesh.instance']}" for info in infos]
    with pytest.raises(CliError) as caught:
        instance_of("nope", infos, services=True)
    assert f"there are: {', '.join(names)};" in caught.value.hint
    assert "did you mean" not in caught.value.hint


@pytest.mark.parametrize(
    ("found", "word", "told"),
    [
        (
            [Silent("orders", "AAAA", "shop-1-42", 3.0)], "orders.place",
            "let it go on (kill -CONT 42 on shop-1) or restart it; 'nats-mesh why orders.place' says what becomes of "
            "a call",
        ),
        (
            [Silent("orders", "AAAA", "shop-42", 3.0)], "shop-42",
            "let it go on (kill -CONT 42 on shop) or restart it; 'nats-mesh why orders.ENDPOINT' says what becomes of "
            "a call",
        ),
        ([Silent("orders")], "", "let it go on (kill -CONT PID) or restart it"),
        (
            [Silent("orders", "AAAA", "shop-42"), Silent("orders", "BBBB", "shop-43")], "",
            "let them go on (kill -CONT PID) or restart them",
        ),
    ],
)  # fmt: skip
def test_what_to_do_about_silence_can_be_typed(found: list[Silent], word: str, told: str) -> None:
    """The process is named where one is known, the call is one that ``why`` takes; ``why`` does not name itself."""
    assert after_silence(found, word) == told
    if word:
        error = silent_error(found, word)
        assert error is not None
        assert error.hint == told


def test_a_namespace_without_services_is_named(shop: Shop) -> None:
    """`stat` says where it looked, and where services are, as `get services` does."""
    done = shop("-n", "nowhere", "stat", "--window", "2s")
    assert "(namespace 'nowhere'); nothing runs here; there are services in namespace" in done.err
    assert shop.namespace in done.err
