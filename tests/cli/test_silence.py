"""What commands say that look once, and come when an instance hangs already."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Shop


@pytest.fixture
def frozen(place: Shop) -> Iterator[Shop]:
    """The only instance of orders was stopped a moment ago; stock is well."""
    with (
        place.background("run", "shopapp:stock") as stock,
        place.background("run", "shopapp:orders") as orders,
    ):
        stock.wait_for("is ready")
        (pid,) = re.findall(r"-(\d+)\)$", orders.wait_for("is ready"))
        assert place("call", "orders.place", '{"sku":"tea"}').code == 0
        os.kill(int(pid), signal.SIGSTOP)
        try:
            yield place
        finally:
            os.kill(int(pid), signal.SIGCONT)


def test_a_silent_instance_is_told_from_none(frozen: Shop) -> None:
    """Nobody answers for orders, but the server hands its calls on: a command that never heard of the instance says
    so, and of a service that nobody serves it does not."""
    instances, services, endpoints, described, events, nobody = frozen.at_once(
        ["get", "instances", "orders"], ["get", "services", "orders"], ["get", "endpoints", "orders.place"],
        ["describe", "orders.place"], ["events", "orders"],
        ["get", "instances", "ordres"],
    )  # fmt: skip
    for done in (instances, services, endpoints, described, events):
        assert done.code == 1
        assert "no instance of orders answers, but one is connected: it is silent" in done.err
    assert nobody.code == 1
    assert "silent" not in nobody.err
    with frozen.background(
        "bench", "orders.place", '{"sku":"tea"}', "--rate", "5", "--duration", "20s"
    ) as load:
        stat = frozen("stat", "--window", "4s")
        assert "no instance of orders answers" in stat.err, (stat.out, stat.err)
        assert "stock" not in stat.err
        load.end(signal.SIGINT)
