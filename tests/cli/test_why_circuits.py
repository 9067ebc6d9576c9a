"""What `why` says of its caller's circuits, and of whom it ejected, by what the caller's instances tell."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from nats_mesh.core.breaker import BreakerState
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh.telemetry.snapshots import NOTHING, Breaker, Ejection, Member, Snapshot
from nats_mesh.telemetry.stats_messages import MAX_LISTED
from nats_mesh_cli.heard import SETTLE_S
from nats_mesh_cli.why_heard import Listening, Told, told_of
from nats_mesh_cli.why_text import render
from tests.cli.conftest import Shop
from tests.cli.test_why import document, happens

OPEN, HALF = BreakerState.OPEN, BreakerState.HALF_OPEN
#: All calls go one way.
PLAIN = "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: r}\nspec: {target: {service: reviews}}"
BALANCED = PLAIN.replace("service: reviews}", "service: reviews}, balancer: round_robin")
DELAYED = """apiVersion: mesh/v1
kind: Route
metadata: {name: reviews}
spec:
  target: {service: reviews}
  rules: [{fault: {delay: {duration: 1s, share: 10%}}}]
"""


def breaker(
    instance: str, state: BreakerState = OPEN, retry_after_s: float | None = 3.2, **fields: str
) -> Breaker:
    """One that an instance of web tells of."""
    place = {"service": "reviews", "endpoint": "get", **fields}
    return Breaker(caller="web", instance=instance, state=state, retry_after_s=retry_after_s, **place)


def told(*breakers: Breaker, ids: str = "abc", untold: str = "", **fields: Any) -> Told:
    """What instances of web tell."""
    return Told(told=tuple(ids), untold=tuple(untold), breakers=breakers, **fields)


def said(told: Told, text: str = PLAIN, layer: str = "breaker") -> str:
    """What is said of a layer."""
    return happens(document(text, told=told)["ways"][0], layer)


RULE = "refused at once while this caller's circuit for the endpoint is open; "


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (told(), "closed at all 3 instances of web"),
        (told(ids="a"), "closed at the one instance of web (a)"),
        (
            told(breaker("a"), breaker("c", retry_after_s=1.25)),
            "open at 2 of 3 instances of web (a, c): refused there, unsent; a trial may pass in 1.2s; closed at 1 of "
            "3 instances of web (b)",
        ),
        (
            told(breaker("a", retry_after_s=0.0), ids="a"),
            "open at the one instance of web (a): refused there, unsent; the next call there is a trial",
        ),
        (
            told(breaker("a", retry_after_s=None), ids="a"),
            "open at the one instance of web (a): refused there, unsent; when the next trial may pass is not told",
        ),
        (
            told(breaker("a", HALF, None), ids="a"),
            "half-open at the one instance of web (a): a few calls pass there as trials, and all others are refused",
        ),
        (told(breaker("a", endpoint="put"), breaker("b", subset="v1"), ids="ab"), "closed at all 2 instances of web"),
        (
            told(ids="a", full=frozenset("a")),
            "not known at the one instance of web (a), which has more open circuits than can be told",
        ),
        (told(ids="a", untold="z"), "closed at 1 of 2 instances of web (a); 1 of 2 instances could not be heard (z)"),
        (told(ids=""), "no caller web is there now whose circuit that could be"),
        (told(ids="ab", names={"a": "h-1", "b": "h-2"}), "closed at all 2 instances of web"),
        (
            told(breaker("a"), ids="abc", names={"a": "h-1", "b": "h-2", "c": "h-2"}),
            "open at 1 of 3 instances of web (h-1): refused there, unsent; a trial may pass in 3.2s; closed at 2 of 3 "
            "instances of web (b, c)",
        ),
        (Told(asked=False, reason="nobody may listen"), "nobody may listen"),
    ],
)  # fmt: skip
def test_the_state_of_the_circuit_stands_at_the_breaker(heard: Told, words: str) -> None:
    """Where it is open and until when, where it is closed, and who could not be heard."""
    assert said(heard) == RULE + words


def test_a_call_is_sure_to_fail_where_every_circuit_is_open() -> None:
    """It stands at the top, in the summary and in the data; with the events that say since when."""
    found = document(PLAIN, told=told(breaker("a"), breaker("b"), breaker("c", retry_after_s=5.0)))
    assert found["fails_surely"]
    assert found["problems"] == [
        {
            "what": "circuit",
            "message": "the circuit of web for reviews.get is open at all 3 instances of web: calls are refused "
            "there, unsent",
            "hint": "'nats-mesh events web --kind breaker' says since when, and after what",
        }
    ]
    assert found["summary"] == (
        "would surely fail: UNAVAILABLE, the circuit is open at all 3 instances of web, a trial may pass in 3.2s"
    )
    assert found["ways"][0]["circuits"] == [
        {"instance": "a", "state": "OPEN", "retry_after_s": 3.2},
        {"instance": "b", "state": "OPEN", "retry_after_s": 3.2},
        {"instance": "c", "state": "OPEN", "retry_after_s": 5.0},
    ]
    assert [each["told"] for each in found["caller_instances"]] == [True, True, True]


@pytest.mark.parametrize(
    ("heard", "text"),
    [
        (told(breaker("a"), breaker("b")), PLAIN),
        (told(breaker("a"), breaker("b"), ids="ab", untold="c"), PLAIN),
        (told(breaker("a"), breaker("b", HALF, None), ids="ab"), PLAIN),
        (told(breaker("a"), breaker("b", retry_after_s=0.0), ids="ab"), PLAIN),
        (told(breaker("a", retry_after_s=0.9), ids="a"), DELAYED),
        (told(), PLAIN),
        (told(ids=""), PLAIN),
        (Told(asked=False), PLAIN),
    ],
)
def test_what_may_come_through_is_not_called_sure_to_fail(heard: Told, text: str) -> None:
    """One that is closed, half-open, or due for a trial lets a call pass, as may one of whom nothing was heard."""
    found = document(text, told=heard)
    assert (found["fails"], found["fails_surely"]) == (0.0, False)
    assert bool(found["problems"]) is bool(heard.breakers)
    assert ("whose circuit is open" in found["summary"]) is bool(heard.breakers)


def test_the_sentence_does_not_call_reached_what_is_refused_everywhere() -> None:
    """Where a trial is due it is that or nothing; where one does not say when, it is likely to fail."""
    one = document(PLAIN, told=told(breaker("a", retry_after_s=0.0), ids="a"))
    assert one["summary"].startswith("would fail, or reach reviews.get as a trial; within ")
    assert (
        "refused at 1 of 1 instance of web, whose circuit is open (the next call there is a trial)"
        in one["summary"]
    )
    some = document(PLAIN, told=told(breaker("a", retry_after_s=0.0), ids="ab"))["summary"]
    unheard = document(PLAIN, told=told(breaker("a", retry_after_s=0.0), ids="a", untold="b"))["summary"]
    assert some.startswith("would reach reviews.get;")
    assert unheard.startswith("would reach reviews.get;")
    unknown = document(PLAIN, told=told(breaker("a"), breaker("b", retry_after_s=None), ids="ab"))
    assert (unknown["fails"], unknown["fails_surely"]) == (1.0, False)
    assert unknown["summary"].startswith("would most likely fail: UNAVAILABLE, the circuit is open at all 2 ")


def test_who_is_refused_meets_no_silent_instance() -> None:
    """An open circuit comes before whatever waits behind it: it is sure, and ends at once."""
    found = document(PLAIN, infos=[], silence=Silence.SILENT, told=told(breaker("a"), ids="a"))
    assert found["fails_surely"]
    assert found["summary"].startswith("would surely fail: UNAVAILABLE, the circuit is open")
    assert "answers nothing" not in found["summary"]


def test_without_a_caller_those_whose_circuit_is_open_are_named() -> None:
    """Whoever asks why calls of an endpoint fail need not know who calls it; circuits for others are no news."""
    callers = {
        "web": told(breaker("a"), breaker("b", HALF, None), ids="ab"),
        "kiosk": told(breaker("k", endpoint="put"), ids="k"),
        "app": told(ids="x"),
    }
    found = document(PLAIN, told=Told(asked=False), callers=callers)
    (problem,) = found["problems"]
    assert "; refused at 1 of 2 instances of web (a), whose circuit is open; " in found["summary"]
    assert problem == {
        "what": "circuit",
        "message": "the circuit for reviews.get is open at 1 of 2 instances of web (a): their calls are refused, "
        "unsent",
        "hint": "--from web tells of its calls",
    }


def test_who_is_ejected_stands_at_the_balancer() -> None:
    """By whom of the caller's instances; where no balancer chooses, nobody is ejected."""
    one = Ejection(caller="web", instance="a", service="reviews", ejected="A")
    other = Ejection(caller="web", instance="a", service="stock", ejected="S")
    for heard, words in (
        (told(ejections=(one, other)), "web has ejected host-A (at 1 of 3 instances of it)"),
        (told(ids="a", ejections=(one,)), "web has ejected host-A"),
        (
            told(ids="a", untold="b"),
            "web has ejected none of them; 1 of 2 instances of it could not be heard",
        ),
        (told(ids="", untold="b"), "whom this caller has ejected is not known here"),
        (Told(asked=False), "whom this caller has ejected is not known here"),
    ):
        assert said(heard, BALANCED, "balance").endswith(f"; {words}")
    (way,) = document(BALANCED, told=told(ejections=(one, other)))["ways"]
    assert way["ejected"] == [{"caller_instance": "a", "instance": "A"}]
    assert document(PLAIN, told=told(ejections=(one,)))["ways"][0]["ejected"] is None


def test_ways_of_one_call_have_circuits_of_their_own() -> None:
    """What fails in a subset says nothing of the others, and the summary names the way."""
    found = document(told=told(breaker("a", subset="v1"), ids="a"))
    assert [(way["text"], way["fails"]) for way in found["ways"]] == [
        ("reviews.get/v1", 1.0), ("reviews.get", 0.0), ("reviews.get/v2", 0.0),
    ]  # fmt: skip
    assert (
        "would fail with 72% (UNAVAILABLE, the circuit is open at the one instance of web (a)"
        in found["summary"]
    )


# -- heard --------------------------------------------------------------------------------------------


def member(identifier: str, **fields: Any) -> Member:
    """An instance of web."""
    return Member(service="web", id=identifier, name=f"h-{identifier}", red=NOTHING, **fields)


class Seen:
    """A view in which members tell one after the other, every 0.5 s."""

    def __init__(self, order: str) -> None:
        self.now = 100.0
        self._order = order

    @property
    def told(self) -> frozenset[tuple[str, str]]:
        return frozenset(("web", each) for each in self._order[: int((self.now - 100.0) / 0.5)])

    def snapshot(self) -> Snapshot:
        return Snapshot(red=NOTHING, members=tuple(map(member, self._order)))

    async def news(self, timeout_s: float) -> bool:
        self.now += timeout_s
        return True


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("order", "asked", "heard", "took_s"),
    [("ab", "ab", "ab", 1.0), ("ab", "a", "a", 0.5), ("", "", "", 0.0), ("ab", "abz", "ab", SETTLE_S)],
)
async def test_nobody_waits_longer_than_those_take_who_were_asked(
    order: str, asked: str, heard: str, took_s: float
) -> None:
    """It ends with the last of them, and with the time that is set in any case: who was not heard is named."""
    seen = Seen(order)
    listening = Listening(seen, now=lambda: seen.now)
    found = (await listening.told({"web": tuple(asked)}))["web"]
    assert (found.told, found.untold) == (tuple(heard), tuple(sorted(set(asked) - set(heard))))
    assert seen.now - 100.0 == pytest.approx(took_s)


def test_what_others_tell_under_the_same_id_is_not_taken() -> None:
    """A caller's word is that of its own instances; one that tells of as much as one can may have more."""
    many = tuple(breaker("a", endpoint=f"e{number}") for number in range(MAX_LISTED))
    shown = Snapshot(
        red=NOTHING,
        members=(
            member("a", breakers=many),
            member("b", breakers=(breaker("b"),)),
            msgspec.structs.replace(member("c", breakers=(breaker("c"),)), service="other"),
        ),
    )
    found = told_of("web", ["a", "b", "c"], {("web", "a"), ("web", "b"), ("other", "c")}, shown)
    assert (found.told, found.untold, found.full) == (("a", "b"), ("c",), frozenset("a"))
    assert [each.instance for each in found.breakers[-2:]] == ["a", "b"]


# -- the command --------------------------------------------------------------------------------------


def test_an_open_circuit_on_a_real_server(shop: Shop) -> None:
    """The caller's own statistics tell of it, as soon as it opens: exit code 1, and the words and the data say why."""
    with shop.background(
        "bench", "orders.boom", "--as", "front", "--rate", "50", "--duration", "120s"
    ) as calling:
        found: Mapping[str, Any] = {}
        end = time.monotonic() + 30.0
        while not found.get("fails_surely"):
            assert time.monotonic() < end, found
            found = shop("why", "orders.boom", "--from", "front", "-o", "json").json
        (circuit,) = found["ways"][0]["circuits"]
        assert circuit["state"] == "OPEN"
        assert circuit["retry_after_s"] > 0.0
        assert found["problems"][0]["what"] == "circuit"
        assert "UNAVAILABLE, the circuit is open at the one instance of front" in found["summary"]
        named = [each["message"] for each in shop("why", "orders.boom", "-o", "json").json["problems"]]
        assert ["circuit for orders.boom is open at the one instance of front" in each for each in named] == [
            True
        ]
        other, same, nobody, unasked = shop.many(
            ["why", "orders.place", "--from", "front"],
            ["why", "orders.place", "--as", "front", "-o", "json"],
            ["why", "orders.boom", "--as", "nobody"],
            ["why", "orders.boom"],
        )
        calling.process.terminate()
    assert other.code == 0
    assert "closed at the one instance of front" in " ".join(other.out.split())
    assert same.json["caller"] == "front"
    states = [each["state"] for each in same.json["ways"][0]["circuits"]]
    assert states == ["CLOSED"], "who only asks under that name calls nobody"
    assert "no caller nobody is there now whose circuit" in " ".join(nobody.out.split())
    assert "note: no caller 'nobody' is seen here" in nobody.out
    assert "each caller has its own: --from CALLER asks for it" in " ".join(unasked.out.split())
    assert render(dict(found), wide=True)
