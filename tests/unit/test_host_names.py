"""By which names the port of the metrics may be asked: scrapers by any, a page's name for our address by none."""

from __future__ import annotations

import pytest

from nats_mesh.core.host_names import may_ask, same_machine

ADDRESSES = [
    "127.0.0.1",
    "127.0.0.1:9464",
    "10.1.2.3:9464",
    "[::1]:9464",
    "[fd00::1]",
    "192.0.2.7:",
    " 10.0.0.1 ",
]


@pytest.mark.parametrize("host", [*ADDRESSES, "localhost", "LocalHost:9464", "orders.localhost:9464", None])
@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("names", [(), ("orders",), ("*",)])
def test_an_address_is_always_answered(host: str | None, here: bool, names: tuple[str, ...]) -> None:
    """Nobody else can have given us this name; whoever says none is no browser."""
    assert may_ask(host, names, here=here)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9464",
        "orders.prod.svc.cluster.local:9464",
        "127.0.0.1.evil.example",
        "a.",
    ],
)
def test_a_scraper_elsewhere_may_use_any_name_and_a_browser_here_may_not(host: str) -> None:
    """Where names are not listed; a name without a dot is nobody's in the world."""
    assert may_ask(host, (), here=False)
    assert may_ask(host, (), here=True) == (host == "a.")


@pytest.mark.parametrize("here", [True, False])
def test_names_that_are_listed_are_the_only_ones(here: bool) -> None:
    """Wherever somebody comes from; below a wildcard is any depth, and not the name itself."""
    names = ("orders", "*.prod.example", "web.example")
    for host in ("orders", "Orders:9464", "a.prod.example", "a.b.prod.example.", "web.example:1"):
        assert may_ask(host, names, here=here), host
    for host in (
        "stock",
        "prod.example",
        "evilprod.example",
        "web.example.evil.example",
        "",
        ":9464",
        "orders:x",
    ):
        assert not may_ask(host, names, here=here), host


@pytest.mark.parametrize(
    ("peer", "local", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.6", "10.0.0.5", False),
        ("::ffff:10.0.0.6", "::ffff:10.0.0.5", False),
        ("", "10.0.0.5", False),
    ],
)
def test_who_has_our_own_address_is_on_this_machine(peer: str, local: str, same: bool) -> None:
    """So is whoever comes by the loopback."""
    assert same_machine(peer, local) == same
