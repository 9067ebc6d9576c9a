"""What `why` says of a call: in words for people, whole for programs, and by its exit code."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.explaining.calls import Question, explain_call
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh.layers.stack import INBOUND, OUTBOUND
from nats_mesh.model import OwnHeaders
from nats_mesh.policy import PolicySet, parse
from nats_mesh_cli.catalog import visible
from nats_mesh_cli.fitting import fitted
from nats_mesh_cli.values import parse_headers
from nats_mesh_cli.why_document import document_of
from nats_mesh_cli.why_heard import UNASKED, Told
from nats_mesh_cli.why_text import render
from tests.cli.conftest import Shop
from tests.cli.infos import foreign_info, mesh_info

REVIEWS = """apiVersion: mesh/v1
kind: Destination
metadata: {name: reviews}
spec:
  target: {service: reviews}
  timeout: 3s
  subsets:
    v1: {labels: {version: v1}}
    v2: {labels: {version: v2}}
---
apiVersion: mesh/v1
kind: Destination
metadata: {name: v2}
spec:
  target: {service: reviews, subset: v2}
  timeout: 1500ms
  balancer: round_robin
---
apiVersion: mesh/v1
kind: Route
metadata: {name: reviews}
spec:
  target: {service: reviews}
  rules:
    - match: {callers: [mobile-*]}
      fault: {abort: {status: UNAVAILABLE}}
    - match: {headers: {end-user: jason}}
      split: [{subset: v2}]
      fault: {delay: {duration: 2s, share: 10%}, abort: {status: INTERNAL, share: 5%}}
    - match: {share: 20%}
      sticky: {header: end-user}
      retry: {attempts: 3}
    - split: [{subset: v1, weight: 90}, {subset: v2, weight: 10}]
      mirror: {subset: v2, share: 20%}
"""

INFOS = (
    mesh_info("reviews", "A", endpoints=("get",), labels={"version": "v1"}),
    mesh_info("reviews", "B", endpoints=("get",), labels={"version": "v1"}, state="draining"),
    mesh_info("reviews", "C", "2.0.0", endpoints=("get", "put"), labels={"version": "v2"}),
    mesh_info("web", "W"),
)


def document(
    text: str = REVIEWS,
    infos: Sequence[InfoReply] | None = INFOS,
    *,
    count: int | None = None,
    caller: str = "web",
    target: str = "reviews.get",
    sent: Sequence[str] = (),
    clients: frozenset[str] = frozenset(),
    told: Told = UNASKED,
    silence: Silence = Silence.UNKNOWN,
    callers: Mapping[str, Told] | None = None,
    **question: Any,
) -> dict[str, Any]:
    """The document of one call, as JSON and back; it can be shown, within 80 columns."""
    policies = PolicySet.of(parse(text, file="r.yaml"))
    service, _, endpoint = target.partition(".")
    asked = Question(
        service=service, endpoint=endpoint, caller=caller, headers=parse_headers(sent), **question
    )
    made = document_of(
        explain_call(asked, policies, infos, {service: silence}),
        policies,
        infos=None if infos is None else visible(infos, policies.namespace),
        everything=infos or (),
        clients=clients,
        reason="" if infos is not None else "it is away",
        source="policies",
        count=count,
        named=True,
        now_s=0.0,
        told=told,
        callers=callers or {},
    )
    for wide in (False, True):
        shown = fitted(render(made, wide=wide), 80)
        assert "None" not in shown
        assert max(map(len, shown.split("\n"))) <= 80, shown
        assert all(line == line.rstrip() for line in shown.split("\n"))
    back: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made))
    assert back == made
    return made


def happens(way: dict[str, Any], layer: str, side: str = "outbound") -> str:
    """What is said of one layer."""
    return next(str(each["happens"]) for each in way["layers"][side] if each["layer"] == layer)


WORDS = """\
call reviews.get as web
  namespace  default
  policies   3 in policies (revision {revision})

Routes that are about it, the least specific first
  Route/reviews (r.yaml:24)
    ✗ rules[0]: caller mobile-* → UNAVAILABLE for 100%
      not met: caller mobile-*, and it is web
    ✗ rules[1]: header end-user = 'jason' → v2, delay 2000 ms for 10%, INTERNAL
      for 5%
      not met: header end-user = 'jason', and it is not there
    ~ rules[2]: 20% of them → sticky by header end-user
      met by 20%
    ✓ rules[3]: every call → v1 90% · v2 10%, copies to v2 (20%)
      met by all of the 80% that get here

Where such calls go
  72% → reviews.get/v1 (1 instance): weight 90 of 100
  20% → reviews.get (2 instances): as it was called
  8% → reviews.get/v2 (1 instance): weight 10 of 100

72% → reviews.get/v1

At the caller web, in the order in which the call meets it
  context          begins a trace, or goes on with that of the call it is made
                   from
  deadline         it may take 3s, or what is left to the call that it is made
                   from
                     timeout 3s: Destination/reviews (r.yaml:6)
  plug-ins         not in the chain: none is installed at the caller
  interceptors     those in the caller's code, which nobody knows here, see it
                   next
  route            meets Route/reviews rules[3] (r.yaml:33); goes to
                   reviews.get/v1: weight 90 of 100
  encode           its value is encoded once, whatever number of attempts
                   follows
  fault            not in the chain: no rule that it meets has one
  mirror           20% are copied to reviews.get/v2 (1 instance); nobody waits
                   for what becomes of them, by Route/reviews rules[3]
                   (r.yaml:33)
  retry            up to 2 attempts, as long as the caller's budget for reviews
                   has one left
                     idempotent yes: endpoint
                     again, after about 25ms: nobody listens, or who does drains
                       or is full; UNAVAILABLE, or the connection broke; its
                       time is over
                     not (not retryable): RESOURCE_EXHAUSTED from the handler;
                       INTERNAL or UNKNOWN; any other error, such as NOT_FOUND
                     not (the circuit is open): refused by this caller's circuit
  breaker          refused at once while this caller's circuit for the endpoint
                   is open; each caller has its own, so its state is not known
                   here
  attempt-timeout  its attempts have 1.5s, then 1.475s, where each uses up its
                   own
  hedge            not in the chain: no policy asks for it
  balance          the server's queue group gives it to one of 1 instance:
                   host-A 1.0.0 (version=v1)
  wire             sent to mesh.default.rpc.reviews.v1.get.web

At the instance, in the order in which the request meets it
  identity         it must name its publisher's own inbox; nothing checks
                   whether this caller may call: access policies have no layer
                   in this version
  draining         takes no calls: host-B (draining)
  deadline         refused unseen where its time is over when it arrives
  fault            not in the chain: no operator injects one
  concurrency      refused at once where 64 of the endpoint's calls run in its
                   instance; under way now, of all endpoints: host-A 2
                     concurrency.limit 64: endpoint
  credit           not in the chain: no policy asks for it
  decode           INVALID_ARGUMENT where the value does not fit the endpoint
  duplicates       it has no idempotency key, so nothing tells whether it was
                   made before
  plug-ins         not in the chain: none is installed at the instances
  interceptors     those in the service's code, which nobody knows here
  handler          reviews.get runs
  encode           its value is encoded; an error of the handler's where that
                   cannot be

20% → reviews.get: as above, but for
"""


def test_a_call_in_words() -> None:
    """Every decision with the rule or policy behind it, the likeliest way in full, and one line that sums it up."""
    found = document()
    assert render(found).endswith(f"\n\nin short: {found['summary']}"), "as it is piped: no line is broken"
    text = fitted(render(found), 80)
    assert text.startswith(WORDS.format(revision=found["policies"]["revision"]))
    assert text.endswith(
        "in short: would reach reviews.get/v1 with 72%, reviews.get with 20%,\n"
        "  reviews.get/v2 with 8%; within 1.5s or 3s; up to 2 or 3 attempts"
    )
    other = text.partition("20% → reviews.get: as above, but for\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in other.split("\n") if line[2] != " "] == [
        "route", "mirror", "retry", "attempt-timeout", "balance", "wire", "concurrency",
    ]  # fmt: skip


def test_a_sticky_call_in_words() -> None:
    """With its key all such calls meet the rule or none does, and the condition says where the key stands."""
    for user in ("ann", "bob", "eve", "joe", "kim"):
        found = document(sent=[f"End-User: {user}"])
        third = found["routes"][0]["rules"][2]
        condition = third["matches"][0]["conditions"][0]
        place = float(condition["found"][0].split()[-1].rstrip("%"))
        assert condition["found"][0].startswith(f"{user!r} is at ")
        assert (third["state"], condition["holds"]) == (("met", True) if place < 20.0 else ("not met", False))
        assert len(found["ways"]) == (1 if place < 20.0 else 2)
        if place >= 20.0:
            assert f"not met: 20% of them, and {condition['found'][0]}" in render(found)


def test_every_layer_of_the_stack_is_told() -> None:
    """In its order, on both sides, each in words; `-o json` has all parameters with their sources."""
    for found in (document(), document(infos=None), document(infos=(), keyed=True)):
        for way in found["ways"]:
            for side, stack in (("outbound", OUTBOUND), ("inbound", INBOUND)):
                layers = way["layers"][side]
                assert [each["layer"] for each in layers] == [each.name for each in stack]
                assert all(each["happens"] for each in layers)
                for layer in layers:
                    assert all(p["source"] for p in layer["parameters"].values())


@pytest.mark.parametrize(
    ("sent", "arguments", "layer", "said"),
    [
        (["end-user: jason"], {}, "fault", "10% wait 2s of their time; 5% fail with INTERNAL, unsent"),
        (
            ["end-user: jason"],
            {},
            "balance",
            "round_robin chooses among 1 instance: host-C 2.0.0 (version=v2)",
        ),
        ([], {"timeout_s": 0.5}, "deadline", "it may take 500ms"),
        ([], {"idempotent": False}, "attempt-timeout", "not in the chain: no perTryTimeout"),
        (["traceparent=x"], {}, "context", "goes on with the trace that its header traceparent names"),
    ],
)
def test_what_happens_in_a_layer(
    sent: Sequence[str], arguments: dict[str, Any], layer: str, said: str
) -> None:
    """By the call's headers and arguments."""
    way = document(sent=sent, **arguments)["ways"][0]
    told = happens(way, layer)
    assert told.startswith(said) or (layer == "attempt-timeout" and told == "its attempt has 3s")


def test_arguments_come_first_and_are_named_as_the_source() -> None:
    """What the call itself says wins, and is told as such."""
    way = document(timeout_s=0.25, idempotent=True)["ways"][0]
    layers = {each["layer"]: each for each in way["layers"]["outbound"]}
    assert layers["deadline"]["parameters"]["timeout_s"] == {
        "value": 0.25,
        "source": "argument",
        "field": "timeout",
    }
    assert layers["retry"]["parameters"]["idempotent"]["source"] == "argument"
    assert (way["timeout_s"], way["idempotent"]) == (0.25, True)


def test_of_so_many_calls() -> None:
    """How many go each way on average, and how far off that may well be."""
    found = document(count=1000)
    assert [(way["expected"], way["deviation"]) for way in found["ways"]] == [
        (pytest.approx(720.0), pytest.approx(14.2, abs=0.01)),
        (pytest.approx(200.0), pytest.approx(12.65, abs=0.01)),
        (pytest.approx(80.0), pytest.approx(8.58, abs=0.01)),
    ]
    assert "72%, 720 of 1,000 (± 14) → reviews.get/v1" in render(found)


@pytest.mark.parametrize(
    ("changes", "what", "message", "hint", "fails"),
    [
        (
            {"target": "review.get", "silence": Silence.NOBODY},
            "service",
            "nobody serves 'review' here",
            "did you mean 'reviews'?",
            True,
        ),
        ({"target": "reviews.gte"}, "endpoint", "no endpoint 'gte'", "did you mean 'reviews.get'?", True),
        ({"target": "reviews.put"}, "endpoint", "1 of 2 instances of reviews have no", "1.0.0", False),
        ({"caller": "webb"}, "caller", "no caller 'webb' is seen here", "did you mean 'web'?", False),
        (
            {"infos": [*INFOS[:2], *INFOS[3:]], "sent": ["end-user=jason"]},
            "subset",
            "subset v2 of reviews selects no instance that answers and takes calls",
            "1.0.0 (version=v1)",
            False,
        ),
        (
            {"infos": [], "silence": Silence.NOBODY},
            "service",
            "nobody serves 'reviews' here",
            "nothing runs here",
            True,
        ),
        ({"infos": []}, "service", "no instance of 'reviews' answers here", "nothing runs here", False),
        (
            {"infos": [], "silence": Silence.SILENT},
            "service",
            "no instance of 'reviews' answers, and one is connected: it is silent (hung, or stopped)",
            "'nats-mesh get instances -w'",
            False,
        ),
    ],
)
def test_what_is_wrong_stands_at_the_top(
    changes: dict[str, Any], what: str, message: str, hint: str, fails: bool
) -> None:
    """Names that nobody has, with the nearest; subsets that are empty; whether the call would fail for sure."""
    found = document(**changes)
    problem = next(each for each in found["problems"] if each["what"] == what)
    assert message in problem["message"]
    assert hint in problem["hint"]
    assert found["fails_surely"] is fails
    text = render(found)
    plain = " ".join(text.split())
    assert plain.index(f"note: {problem['message']}") < plain.index("At the caller")
    assert ("in short: would surely fail" in text) is fails


PLAIN = "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: r}\nspec: {target: {service: reviews}}"
TIMED = PLAIN.replace("service: reviews}", "service: reviews}, timeout: 3s")


@pytest.mark.parametrize(
    ("text", "silence", "summary"),
    [
        (PLAIN, Silence.NOBODY, "would surely fail: UNAVAILABLE, no instance of reviews takes calls"),
        (
            PLAIN,
            Silence.SILENT,
            "would most likely fail: DEADLINE_EXCEEDED, an instance of reviews is connected and answers nothing (hung, "
            "or stopped), so the call waits until its time is over; the endpoint's own timeout is not known now (5s "
            "where it has none)",
        ),
        (
            TIMED,
            Silence.UNKNOWN,
            "would most likely fail: UNAVAILABLE or DEADLINE_EXCEEDED, no instance of reviews that answers takes "
            "calls: at once where there is no other, and when its time is over where one is silent (hung, or stopped)",
        ),
    ],
)
def test_nobody_that_answers_is_not_nobody(text: str, silence: Silence, summary: str) -> None:
    """Only where the server says that nobody listens is it sure; a silent instance takes the call and answers nothing.
    What an endpoint declares is not known then, and a policy's timeout is."""
    found = document(text, [mesh_info("web", "W")], silence=silence)
    assert found["summary"] == summary
    assert found["fails_wholly"]
    (way,) = found["ways"]
    assert way["timeout_known"] is (text is TIMED)
    assert ("the endpoint's own timeout is not known now" in happens(way, "deadline")) is (text is PLAIN)


def test_a_subset_without_answers_says_both() -> None:
    """Others of its service answer, so that nothing tells whether one of the subset is there and silent."""
    found = document(infos=[*INFOS[:2], *INFOS[3:]], sent=["end-user=jason"], silence=Silence.SILENT)
    (ending,) = [each for each in found["ways"][0]["endings"] if each["otherwise"]]
    assert (ending["status"], ending["otherwise"], ending["sure"]) == (
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        False,
    )
    assert not found["fails_surely"]
    some = document(infos=[*INFOS[:2], *INFOS[3:]])
    assert (
        "; would most likely fail with 8% (UNAVAILABLE or DEADLINE_EXCEEDED, no instance of "
        in some["summary"]
    )


def test_a_caller_that_only_calls_is_seen() -> None:
    """A pure client answers the roll call, and a service that calls is there by itself."""
    assert document(clients=frozenset({"kiosk"}), caller="kiosk")["problems"] == []
    assert document()["caller_seen"] is True
    assert document(infos=None)["caller_seen"] is None


def test_what_fails_for_some_is_summed_up() -> None:
    """By status and reason; a call that a route always aborts fails for sure."""
    some = document(sent=["end-user: jason"])
    assert not some["fails_surely"]
    assert some["summary"] == (
        "would reach reviews.get/v2 with 85.5%; would fail with 14.5% (DEADLINE_EXCEEDED, a route delays it by 2 s, "
        "and it has 1.5 s; INTERNAL, a route fails it on purpose); within 1.5s; up to 2 attempts"
    )
    every = document(caller="mobile-7", clients=frozenset({"mobile-7"}))
    assert every["fails_surely"]
    assert every["summary"] == "would surely fail: UNAVAILABLE, a route fails it on purpose"


def test_what_operators_do_is_told() -> None:
    """Faults at the instances that would take it; an abort of every call at all of them fails it for sure."""

    def faulty(share: float, **fault: Any) -> InfoReply:
        faults = msgspec.json.encode([{"endpoint": "get", "share": share, "left_ms": 9000, **fault}]).decode()
        return mesh_info("reviews", "A", endpoints=("get",), labels={"version": "v1"}, mesh_faults=faults)

    some = document(infos=[faulty(0.5, abort="INTERNAL"), INFOS[3]], text=REVIEWS.partition("---")[0])
    assert happens(some["ways"][0], "fault", "inbound") == (
        "operators injected at host-A, get: abort INTERNAL for 50% (9 s left)"
    )
    assert not some["fails_surely"]
    assert some["problems"][0] == {
        "what": "fault",
        "message": "an operator's fault is in force at 1 of 1 instance of reviews (host-A): abort INTERNAL for 50% of "
        "the calls",
        "hint": "'nats-mesh fault reviews.get --clear' ends it",
    }
    every = document(infos=[faulty(1.0, abort="INTERNAL")], text=REVIEWS.partition("---")[0])
    assert every["summary"] == "would surely fail: INTERNAL, operators abort every call at every instance"
    late = document(infos=[faulty(0.5, delay_ms=200), INFOS[3]], text=REVIEWS.partition("---")[0])
    assert "; 50% delayed by 200ms, by operators at every instance; " in late["summary"]
    slow = document(infos=[faulty(1.0, delay_ms=4000)], text=REVIEWS.partition("---")[0])
    assert "delayed" not in slow["summary"]
    assert slow["ways"][0]["endings"][0]["status"] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(
    ("said", "keyed", "words"),
    [
        ("shared", True, "its key is looked up: whoever sends it again gets the first reply"),
        ("local", True, "its key is looked up by the instance that gets it"),
        ("off", True, "its key is ignored"),
        ("shared", False, "it has no idempotency key"),
    ],
)
def test_a_key_is_told_by_what_the_endpoint_does_with_it(said: str, keyed: bool, words: str) -> None:
    """Shared, local, or not looked at."""
    info = mesh_info("reviews", "A", endpoints=("get",))
    endpoints = tuple(
        msgspec.structs.replace(each, metadata={**each.metadata, "mesh.duplicates": said})
        for each in info.endpoints
    )
    infos = [msgspec.structs.replace(info, endpoints=endpoints)]
    way = document(infos=infos, text=REVIEWS.partition("---")[0], keyed=keyed)["ways"][0]
    assert happens(way, "duplicates", "inbound").startswith(words)


def test_without_the_bus_policies_alone_must_do() -> None:
    """It is said at the top what is not known, and nothing is taken for wrong."""
    found = document(infos=None)
    assert (found["problems"], found["fails_surely"], found["bus"]["asked"]) == ([], False, False)
    text = render(found)
    assert "bus        not asked: it is away; so who serves what" in text
    assert "draining         not known: nobody was asked" in text


def test_a_service_outside_the_mesh_has_no_layers() -> None:
    """The caller's side alone, and the subject on which it listens."""
    found = document(infos=[foreign_info(), INFOS[3]], target="legacy.do")
    (way,) = found["ways"]
    assert (way["origin"], way["subject"], way["layers"]["inbound"]) == ("foreign", "legacy.do", [])
    assert not found["fails_surely"]


def test_headers_may_be_written_as_curl_takes_them() -> None:
    """The first of `=` and `:` ends the name."""
    assert parse_headers(["a: b=c", "d=e: f", "a:x"]).pairs() == [("a", "b=c"), ("d", "e: f"), ("a", "x")]
    assert isinstance(parse_headers([]), OwnHeaders)


# -- the command ---------------------------------------------------------------------------------------

ORDERS = """apiVersion: mesh/v1
kind: Destination
metadata: {name: orders}
spec:
  target: {service: orders}
  subsets: {new: {version: 1.2.0}, old: {version: 0.9.0}}
---
apiVersion: mesh/v1
kind: Route
metadata: {name: orders}
spec:
  target: {service: orders}
  rules:
    - match: {headers: {who: old}}
      split: [{subset: old}]
    - match: {headers: {who: ann}}
      split: [{subset: new, weight: 90}, {service: stock, weight: 10}]
      timeout: 250ms
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with policies about the shop."""
    made = tmp_path / "policies"
    made.mkdir()
    (made / "orders.yaml").write_text(ORDERS, encoding="utf-8")
    return made


def test_a_fault_of_all_endpoints_is_ended_for_all() -> None:
    """How to end it is what clears it: by endpoint only where it was set for that endpoint; and it comes before what
    follows from it."""
    faults = msgspec.json.encode([{"endpoint": "", "share": 1.0, "left_ms": 9000, "delay_ms": 50}]).decode()
    found = document(PLAIN, [mesh_info("reviews", "A", endpoints=("get",), mesh_faults=faults), INFOS[3]])
    (problem,) = found["problems"]
    assert problem["hint"] == "'nats-mesh fault reviews --clear' ends it"
    assert "delay 50 ms for 100% of the calls" in problem["message"]


def test_on_a_real_server(shop: Shop, folder: Path) -> None:
    """What runs is asked; exit code 1 where it would surely fail, 2 where it cannot be asked so; nothing is called."""
    named = ["--policies", str(folder)]
    plain, ann, old, typo, away, unknown, subject = shop.many(
        ["why", "orders.place", "--from", "stock", *named],
        ["why", "orders.place", "-H", "who: ann", "-o", "json", "--count", "100", *named],
        ["why", "orders.place", "-H", "who=old", *named],
        ["why", "orders.plaec", "--from", "stok"],
        ["why", "orders.place", "-H", "who=old", "-s", "nats://127.0.0.1:1", "--timeout", "2s", *named],
        ["why", "orders.place", "-H", "nothing"],
        ["why", "nats://orders"],
    )
    assert (plain.code, plain.err) == (0, "")
    assert "deadline         it may take 2s" in plain.out
    assert plain.out.endswith("in short: would reach orders.place; within 2s; up to 2 attempts\n")
    assert (ann.code, ann.err) == (0, "")
    assert [(way["to"], round(way["share"], 9)) for way in ann.json["ways"]] == [
        ({"service": "orders", "endpoint": "place", "subset": "new"}, 0.9),
        ({"service": "stock", "endpoint": "place", "subset": ""}, 0.1),
    ]
    assert [way["timeout_s"] for way in ann.json["ways"]] == [0.25, 0.25]
    assert ann.json["ways"][0]["source"] == f"Route/orders rules[1] ({folder / 'orders.yaml'}:16)"
    assert ann.json["ways"][1]["endings"][0]["status"] == "UNIMPLEMENTED"
    assert ann.json["fails"] == pytest.approx(0.1)
    assert old.code == 1
    assert "note: subset old of orders selects no instance that answers and takes calls" in old.out
    assert typo.code == 1
    assert "did you mean 'orders.place'?" in typo.out
    assert "did you mean 'stock'?" in typo.out
    assert away.code == 0
    assert "not asked: cannot reach nats://127.0.0.1:1" in away.out
    assert "arguments  timeout 2s" in away.out
    assert (unknown.code, unknown.out) == (2, "")
    assert "write -H key=value" in unknown.err
    assert (subject.code, subject.out) == (2, "")
    statistics = shop("describe", "orders", "-o", "json").json
    assert all(not (each.get("statistics") or {}).get("requests") for each in statistics["endpoints"])


def test_a_frozen_instance_takes_calls_and_answers_nothing(place: Shop) -> None:
    """The server hands calls to a stopped process: they wait out their time. Without a process they fail at once."""
    with place.background("run", "shopapp:stock") as running:
        running.wait_for("stock 0.3.0 is ready")
        running.process.send_signal(signal.SIGSTOP)
        try:
            frozen, nobody = place.many(
                ["why", "stock.count", "-o", "json"], ["why", "orders.place", "-o", "json"]
            )
        finally:
            running.process.send_signal(signal.SIGCONT)
    assert (frozen.code, frozen.json["fails_surely"]) == (1, False)
    assert frozen.json["ways"][0]["endings"][0]["status"] == "DEADLINE_EXCEEDED"
    assert (nobody.code, nobody.json["fails_surely"]) == (1, True)
    assert nobody.json["ways"][0]["endings"][0]["status"] == "UNAVAILABLE"


def test_policies_on_the_bus_are_those_that_count(shop: Shop, folder: Path) -> None:
    """Without files it is the store's set, and a decision names the revision that it comes from."""
    assert shop("policy", "apply", "-f", str(folder / "orders.yaml")).code == 0
    plain, as_json = shop.many(
        ["why", "orders.place", "-H", "who=ann"], ["why", "orders.place", "-H", "who=ann", "-o", "json"]
    )
    assert plain.code == 0, plain.err
    assert "policies   2 on the bus, revision " in plain.out
    (route,) = as_json.json["routes"]
    assert route["source"].startswith("Route/orders (Route.orders@")
    assert as_json.json["ways"][0]["to"]["subset"] == "new"
