"""From answers to records: instances, services, endpoints, and what is said of what is not there."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nats_mesh.core.presence import State
from nats_mesh_cli.catalog import (
    announcement_of,
    endpoint_records,
    instance_record,
    read_infos,
    service_records,
    version_key,
    visible,
)
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.get import KINDS, kind_of, records_of, short_ids
from nats_mesh_cli.hints import listed, missing_endpoint, missing_service
from tests.cli.infos import foreign_info, mesh_info, payload

NOW_S = 1_738_324_800.0 + 90.0  # 2025-01-31T12:01:30Z


def test_an_instance_has_raw_numbers() -> None:
    """Labels apart from the mesh's own metadata; ages in seconds, loads as numbers."""
    record = instance_record(mesh_info(labels={"zone": "eu"}), NOW_S)
    assert record["labels"] == {"zone": "eu"}
    assert (record["age_s"], record["in_flight"], record["limit"], record["wire"]) == (90.0, 2, 64, 1)
    assert (record["kind"], record["state"], record["host_pid"]) == ("mesh", "ready", "host-AAAA")


def test_what_a_foreign_service_does_not_say_is_null() -> None:
    """It answers, so it is ready; it belongs to no namespace, and its load and age are unknown."""
    record = instance_record(foreign_info(), NOW_S)
    assert (record["kind"], record["state"], record["namespace"]) == ("foreign", "ready", None)
    assert (record["in_flight"], record["age_s"], record["wire"]) == (None, None, None)


def test_a_service_adds_up_its_instances() -> None:
    """Ready of all, versions counted in order, load summed, the oldest age, labels that all have."""
    infos = [
        mesh_info("orders", "A1", "1.10.0", labels={"zone": "eu", "x": "1"}),
        mesh_info("orders", "A2", "1.9.0", state="draining", labels={"zone": "eu", "x": "2"}),
        mesh_info("stock", "B1", state="draining"),
    ]
    orders, stock = service_records([instance_record(info, NOW_S) for info in infos])
    assert (orders["ready"], orders["instances"], orders["state"]) == (1, 2, "partial")
    assert list(orders["versions"].items()) == [("1.9.0", 1), ("1.10.0", 1)]
    assert (orders["in_flight"], orders["labels"]) == (4, {"zone": "eu"})
    assert stock["state"] == "draining"


def test_namespaces_keep_services_apart() -> None:
    """One name in two namespaces is two services; a namespace shows its own and what belongs to none."""
    infos = [mesh_info(namespace="blue"), mesh_info(identifier="B", namespace="green"), foreign_info()]
    assert [r["namespace"] for r in service_records([instance_record(i, NOW_S) for i in infos])] == [
        None,
        "blue",
        "green",
    ]
    assert [i.id for i in visible(infos, "blue")] == ["AAAA", "ZZZZ"]
    assert len(visible(infos, None)) == 3


def test_an_endpoint_is_shown_as_its_newest_version_declares_it() -> None:
    """During a rollout the newest instance's declaration is shown, with every version that serves it."""
    (record,) = endpoint_records([mesh_info(version="1.9.0"), mesh_info(identifier="B", version="1.10.0")])
    assert (record["endpoint"], record["instances"], record["versions"]) == (
        "orders.place",
        2,
        ["1.9.0", "1.10.0"],
    )
    assert (record["timeout_ms"], record["idempotent"], record["concurrency"]) == (2000, True, 64)
    assert (record["request"], record["response"]) == ("integer", "string")
    assert record["subject"] == "mesh.default.rpc.orders.all.place.{caller}"


def test_illegible_answers_are_counted_and_clients_are_no_services() -> None:
    """Garbage never hides the others; a pure client that answers a roll call is not listed."""
    good = payload("orders", "A", "1.0.0", {}, [])
    client = payload("web", "C", "1.0.0", {"mesh.kind": "client"}, [])
    infos, bad = read_infos([b"{", good, good, client, b"\xff\x00"])
    assert ([i.name for i in infos], bad) == (["orders"], 2)


def test_versions_sort_as_people_read_them() -> None:
    """Numbers by value, a pre-release before its release, build metadata aside."""
    ordered = [
        "",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-rc.2",
        "1.0.0-rc.10",
        "1.0.0",
        "1.2.0",
        "1.10.0",
        "2.0.0",
    ]
    assert all(version_key(a) < version_key(b) for a, b in pairwise(ordered))
    assert version_key("1.0.0+a") == version_key("1.0.0+b")


def test_an_answer_can_stand_for_an_announcement() -> None:
    """What an instance answers seeds a registry as if it had been heard; what is foreign does not."""
    announcement = announcement_of(mesh_info())
    assert announcement is not None
    assert (announcement.service, announcement.instance, announcement.seq) == ("orders", "AAAA", 3)
    assert (announcement.state, announcement.interval_s) == (State.READY, 5.0)
    assert announcement.endpoints[0].timeout_ms == 2000
    assert announcement_of(foreign_info()) is None
    assert announcement_of(mesh_info(mesh_seq="soon")) is None


def test_short_ids_tell_instances_apart() -> None:
    """As short as possible, at least eight characters, never ambiguous."""
    records = [{"instance": name} for name in ("abcdefgh11", "abcdefgh22", "zzzzzzzzzz")]
    assert [r["short"] for r in short_ids(records)] == ["abcdefgh11", "abcdefgh22", "zzzzzzzzzz"]
    assert [r["short"] for r in short_ids(records[1:])] == ["abcdefgh", "zzzzzzzz"]
    assert short_ids([]) == []


@pytest.mark.parametrize("word", ["services", "service", "svc", "SERVICES"])
def test_kinds_have_short_names(word: str) -> None:
    """Plural, singular, short, whatever the case."""
    assert kind_of(word).plural == "services"


def test_an_unknown_kind_is_named_with_the_nearest() -> None:
    """A typo in the kind is a usage error with a suggestion."""
    with pytest.raises(CliError, match="no kind 'instnaces'") as caught:
        kind_of("instnaces")
    assert (caught.value.hint, caught.value.code) == ("did you mean 'instances'?", 2)


def test_every_column_can_show_every_record() -> None:
    """No column stumbles over what a foreign service leaves out."""
    infos = [mesh_info(), foreign_info()]
    for kind in KINDS.values():
        for record in records_of(kind, infos):
            assert all(isinstance(column.text(record), str) for column in kind.columns)
            assert kind.name(record)


def test_a_missing_service_is_looked_for_elsewhere() -> None:
    """Another namespace first, then another spelling, then what there is, then how to start one."""
    infos = [mesh_info(), mesh_info("stock", "B", namespace="blue"), foreign_info()]
    assert missing_service("stock", infos, "default") == "it runs in namespace blue: use -n blue"
    assert missing_service("ordres", infos, "default").startswith("did you mean 'orders'?")
    assert missing_service("xyz", infos, "default") == "there are: legacy, orders"
    assert "nats-mesh run" in missing_service("xyz", [], "default")
    assert "blue" in missing_service("xyz", infos[1:2], "default")


def test_a_missing_endpoint_is_looked_for_in_its_service() -> None:
    """The nearest endpoint and the list of them; silence where the endpoint is there."""
    infos = [mesh_info(endpoints=("place", "cancel"))]
    assert (
        missing_endpoint("orders", "plcae", infos) == "did you mean 'orders.place'? orders has: cancel, place"
    )
    assert missing_endpoint("orders", "place", infos) == ""


def test_long_lists_are_counted() -> None:
    """Eight names and the number of the others."""
    assert listed(f"s{i}" for i in range(10)).endswith("s7 and 2 more")
