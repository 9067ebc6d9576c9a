"""What `check` concludes, and what `describe` makes of an answer, without a bus."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from nats_mesh import Mesh
from nats_mesh.core.members import Instance
from nats_mesh.core.registry import Registry
from nats_mesh_cli.catalog import announcement_of
from nats_mesh_cli.check import render, verdict
from nats_mesh_cli.checks import (
    BAD,
    GOOD,
    SKIPPED,
    WARN,
    Finding,
    check_answers,
    check_jetstream,
    check_wire,
    version_of,
)
from nats_mesh_cli.describe import document_of
from nats_mesh_cli.describe_text import render as render_document
from nats_mesh_cli.errors import CliError
from tests.cli.infos import foreign_info, mesh_info


def heard(*identifiers: str) -> list[Instance]:
    """Instances whose presence was heard."""
    registry = Registry()
    for identifier in identifiers:
        announcement = announcement_of(mesh_info(identifier=identifier))
        assert announcement is not None
        registry.apply(announcement, 1.0)
    return registry.instances()


def test_who_is_heard_and_does_not_answer_is_wrong() -> None:
    """An instance that announces itself and answers nothing is named, with a remedy."""
    (finding,) = check_answers(heard("A", "B"), [mesh_info(identifier="A")], 0)
    assert (finding.state, finding.data) == (BAD, {"silent": ["orders (host-B)"]})
    assert finding.remedy


def test_who_answers_unheard_is_worth_a_look() -> None:
    """Calls work; whoever watches presence will miss the instance."""
    (finding,) = check_answers(
        heard("A"), [mesh_info(identifier="A"), mesh_info(identifier="B"), foreign_info()], 0
    )
    assert (finding.state, finding.data) == (WARN, {"unheard": ["orders (host-B)"]})


def test_all_heard_and_answering_is_fine() -> None:
    """Services outside the mesh announce nothing and are not missed; unbelievable announcements are said."""
    (finding,) = check_answers(heard("A"), [mesh_info(identifier="A"), foreign_info()], 0)
    assert finding.state == GOOD
    (finding,) = check_answers(heard("A"), [mesh_info(identifier="A")], 3)
    assert (finding.state, finding.data) == (WARN, {"ignored": 3})
    assert check_answers([], [], 0)[0].state == SKIPPED


def test_another_version_of_the_wire_is_wrong() -> None:
    """Instances that speak another version are named."""
    assert check_wire([mesh_info(), foreign_info()]).state == GOOD
    finding = check_wire([mesh_info(), mesh_info(identifier="B", mesh_wire="2")])
    assert (finding.state, "orders (host-B)" in finding.text) == (BAD, True)
    assert finding.text.startswith("1 of 2 instances speak another version")
    assert check_wire([]).state == SKIPPED


def test_one_is_said_in_the_singular() -> None:
    """Also where its verb goes with it."""
    assert check_wire([mesh_info()]).text == "1 instance speaks version 1"
    assert check_wire([mesh_info(), mesh_info(identifier="B")]).text == "all 2 instances speak version 1"
    assert check_wire([mesh_info(mesh_wire="2")]).text.startswith("1 of 1 instance speaks another version")


class Bus:
    """A mesh on a bus whose JetStream has so many streams."""

    def __init__(self, streams: int) -> None:
        self.client = SimpleNamespace(transport=SimpleNamespace(jetstream="$JS.API"))
        self._streams = streams

    async def call(self, target: str, *, timeout: float) -> dict[str, int]:
        assert target == "nats://$JS.API.INFO"
        return {"streams": self._streams}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("streams", "text"), [(0, "there, 0 streams"), (1, "there, 1 stream"), (2, "there, 2 streams")]
)
async def test_streams_are_counted(streams: int, text: str) -> None:
    """As JetStream says how many there are."""
    assert (await check_jetstream(cast(Mesh, Bus(streams)))).text == text


@pytest.mark.parametrize(
    ("text", "version"), [("2.15.1", (2, 15)), ("v2.9", (2, 9)), ("", (0, 0)), ("dev", (0, 0))]
)
def test_versions_of_servers(text: str, version: tuple[int, int]) -> None:
    """Major and minor decide."""
    assert version_of(text) == version


def test_a_finding_is_a_mark_a_word_and_a_remedy() -> None:
    """No state is told by colour or sign alone."""
    record = {"check": "clock", "state": "fail", "text": "40 s ahead", "remedy": "use NTP"}
    first, second = render(record).split("\n")
    assert first.startswith("✗ fail  clock")
    assert second.strip() == "→ use NTP"


def test_every_option_says_where_it_comes_from() -> None:
    """Declared by the endpoint, or the default; in seconds, yes or no, and a number."""
    document = document_of("orders.place", [mesh_info()], 0.0)
    assert document is not None
    options = {key: (option["value"], option["source"]) for key, option in document["options"].items()}
    assert options == {
        "timeout_s": (2.0, "endpoint"),
        "idempotent": (True, "endpoint"),
        "retry_attempts": (2, "default"),
        "balancer": ("queue", "default"),
        "breaker": (True, "default"),
        "hedge": (False, "default"),
        "concurrency": (64, "endpoint"),
    }
    foreign = document_of("legacy.do", [foreign_info()], 0.0)
    assert foreign is not None
    assert {option["source"] for option in foreign["options"].values()} == {"default"}
    assert "concurrency" not in foreign["options"], "a service outside the mesh limits its calls by itself"


def test_what_is_described_is_found_by_name_or_beginning() -> None:
    """A service, an endpoint, an id or host-pid or the beginning of one; several that fit are listed."""
    infos = [mesh_info(identifier="ABC1"), mesh_info("stock", "ABC2"), foreign_info()]
    kinds = {
        what: (document_of(what, infos, 0.0) or {}).get("kind")
        for what in ("orders", "orders.place", "ABC1", "host-ABC2", "ABC", "legacy", "nothing", "")
        if what != "ABC"
    }
    assert kinds == {
        "orders": "service",
        "orders.place": "endpoint",
        "ABC1": "instance",
        "host-ABC2": "instance",
        "legacy": "service",
        "nothing": None,
        "": None,
    }
    with pytest.raises(CliError, match="fits 2 instances") as caught:
        document_of("ABC", infos, 0.0)
    assert "orders ABC1" in caught.value.hint


def test_the_chain_is_told_with_its_reasons() -> None:
    """Both sides' layers in the order a call meets them; a service outside the mesh has the caller's alone."""
    document = document_of("orders", [mesh_info()], 0.0)
    foreign = document_of("legacy", [foreign_info()], 0.0)
    assert document is not None
    assert foreign is not None
    names = [layer["layer"] for layer in document["layers"]["inbound"]]
    assert names.index("deadline") < names.index("concurrency") < names.index("decode")
    assert all(layer["why"] for side in document["layers"].values() for layer in side)
    assert foreign["layers"]["inbound"] == []


def test_every_document_can_be_shown() -> None:
    """Services, endpoints and instances, of the mesh and not, as text and as JSON."""
    infos = [mesh_info(labels={"zone": "eu"}), foreign_info()]
    for what in ("orders", "orders.place", "AAAA", "legacy", "legacy.do", "ZZZZ"):
        document = document_of(what, infos, 0.0)
        assert document is not None
        text = render_document(document)
        assert what in text
        assert "None" not in text
        assert msgspec.json.decode(msgspec.json.encode(document)) == document


def test_what_was_skipped_is_not_called_well() -> None:
    """The last line says of how much it holds, and names what it holds not of."""
    good, bad, odd = (Finding(each, each, "") for each in (GOOD, BAD, WARN))
    skipped = [Finding(each, SKIPPED, "") for each in ("calls", "silent")]
    assert verdict([good]) == ("nothing wrong", "ok")
    assert verdict([good, skipped[0]]) == (
        "nothing wrong in what was looked at; 1 check was skipped: calls",
        "ok",
    )
    assert verdict([good, bad, odd, *skipped]) == (
        "1 wrong, 1 to look at; 2 checks were skipped: calls, silent",
        "bad",
    )
