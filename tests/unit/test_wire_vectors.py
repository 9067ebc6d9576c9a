"""Our implementation against every vector of ``docs/wire-vectors.json``, the machine-readable wire contract."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from nats_mesh.audit.records import decode_record, writer_of
from nats_mesh.calling.saying import read_verdict
from nats_mesh.core.age import AgeGauge
from nats_mesh.core.deadline import check_timeout, deadline_for, to_wire_ms
from nats_mesh.core.duplicates import fingerprint, key_token
from nats_mesh.core.envelope import sampled
from nats_mesh.core.presence import weight_of
from nats_mesh.core.trace import parse_baggage, parse_traceparent
from nats_mesh.discovery import messages
from nats_mesh.discovery.commands import decode_command
from nats_mesh.discovery.overdue import called_in, overdue_in
from nats_mesh.discovery.services_api import mesh_endpoint, parse_verb
from nats_mesh.errors import ApplicationError, CodecError, ConfigError, PolicyError, Refused, Status
from nats_mesh.layers.base import Arrival
from nats_mesh.layers.deadline import DeadlineGate
from nats_mesh.model import check_name
from nats_mesh.policy.bus.acking import decode_ack
from nats_mesh.policy.bus.documents import read_document
from nats_mesh.telemetry.events import decode_event
from nats_mesh.telemetry.series import FAILURES
from nats_mesh.telemetry.slow import decode_slow, decode_slow_answer
from nats_mesh.telemetry.span_messages import decode_spans
from nats_mesh.telemetry.stats import Stats
from nats_mesh.telemetry.stats_messages import decode_stats
from nats_mesh.telemetry.tap_messages import decode_tap, decode_wish
from nats_mesh.wire import headers as h
from nats_mesh.wire.codecs import by_content_type
from nats_mesh.wire.outcome import decode_error, encode_error, is_error
from nats_mesh.wire.subjects import (
    FOREIGN_INBOXES,
    WIRE_VERSION,
    Subjects,
    check_plain_subject,
    parse_inbox,
    parse_rpc,
    plain_answer,
    reply_allowed,
)
from tests.tools import ROOT

Vector = dict[str, Any]

DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "wire-vectors.json").read_text(encoding="utf-8"))
SECTIONS: dict[str, list[Vector]] = DOCUMENT["sections"]


def refuses(error: type[Exception], call: Callable[..., object], *args: Any, **options: Any) -> bool:
    """Whether ``call`` raises ``error``."""
    try:
        call(*args, **options)
    except error:
        return True
    return False


def block_of(vector: Vector) -> bytes:
    """The header block of a vector, given as text or as base64."""
    if "block_base64" in vector:
        return base64.b64decode(vector["block_base64"])
    return str(vector["block"]).encode()


# -- names, subjects, inboxes -----------------------------------------------------------------------


def names(vector: Vector) -> None:
    """Valid ones pass where reserved words may stand; reserved ones are refused where a member is named."""
    assert refuses(ConfigError, check_name, "service", vector["name"], reserved=True) is not vector["valid"]
    usable = vector["valid"] and not vector["reserved"]
    assert refuses(ConfigError, check_name, "service", vector["name"]) is not usable


def subjects_build(vector: Vector) -> None:
    """The subject made of its parts."""
    built = getattr(Subjects(vector.get("namespace", "default")), vector["kind"])
    assert built(**vector["args"]) == vector["subject"]


def subjects_parse(vector: Vector) -> None:
    """A request subject taken apart, or refused whole."""
    parsed = parse_rpc(vector["subject"])
    assert (None if parsed is None else parsed._asdict()) == vector["parsed"]


def plain_subjects(vector: Vector) -> None:
    """Concrete subjects of existing systems."""
    assert refuses(ConfigError, check_plain_subject, vector["subject"]) is not vector["valid"]


def inboxes_parse(vector: Vector) -> None:
    """A mesh inbox taken apart, or another one."""
    parsed = parse_inbox(vector["inbox"])
    assert (None if parsed is None else parsed._asdict()) == vector["parsed"]


def inboxes_believed(vector: Vector) -> None:
    """By its reply subject, in both modes."""
    for mode in ("open", "enforced"):
        enforced = mode == "enforced"
        assert reply_allowed(vector["reply"], vector["publisher"], enforced=enforced) is vector[mode], mode


def plain_replies(vector: Vector) -> None:
    """A plain subject's answer; the Services API answers in the same places."""
    answer = plain_answer(vector["reply"])
    assert answer == {"answered": vector["reply"], "run": "", "dropped": None}[vector["outcome"]]
    assert vector["reply"].startswith(FOREIGN_INBOXES) is (vector["outcome"] == "answered")


# -- headers ----------------------------------------------------------------------------------------


def header_fields(vector: Vector) -> None:
    """The mesh's own look-up in a raw block."""
    for name, value in vector["fields"].items():
        found = h.field(block_of(vector), f"\r\n{name}:".encode())
        assert (None if found is None else found.decode()) == value, name


def header_pairs(vector: Vector) -> None:
    """The whole block as pairs, and what applications see of it."""
    assert [list(pair) for pair in h.parse(block_of(vector))] == vector["pairs"]
    assert [list(pair) for pair in h.user_headers(block_of(vector)).pairs()] == vector["application"]


def header_numbers(vector: Vector) -> None:
    """Whole numbers, or malformed."""
    block = f"NATS/1.0\r\nMesh-Timeout-Ms: {vector['value']}\r\n\r\n".encode()
    if vector["number"] is None:
        assert refuses(ValueError, h.int_field, block, h.TIMEOUT_MS)
    else:
        assert h.int_field(block, h.TIMEOUT_MS) == vector["number"]


def server_status(vector: Vector) -> None:
    """The inline status of a message from the server."""
    assert h.server_status(block_of(vector)) == vector["status"]


def loads(vector: Vector) -> None:
    """What a reply says of its instance's load."""
    line = "" if vector["value"] is None else f"Mesh-Load: {vector['value']}\r\n"
    found = h.load_field(f"NATS/1.0\r\nMesh-Instance: i1\r\n{line}\r\n".encode())
    assert found == (None if vector["load"] is None else tuple(vector["load"]))


def content_types(vector: Vector) -> None:
    """Which codec a content type means."""
    codec = by_content_type(None if vector["value"] is None else vector["value"].encode())
    assert (None if codec is None else codec.name) == vector["codec"]


# -- statuses and errors ----------------------------------------------------------------------------


def statuses(vector: Vector) -> None:
    """Each status, its number, and whose fault it is."""
    assert Status(vector["status"]).code == vector["code"]
    assert (vector["status"] in FAILURES) is vector["counts_as_failure"]


def status_of_code(vector: Vector) -> None:
    """What a foreign number means."""
    assert Status.from_code(vector["code"]) == vector["status"]


def errors_encode(vector: Vector) -> None:
    """An error as it is written: every line, and the body."""
    block, body = encode_error(
        Status(vector["status"]),
        vector["message"],
        instance=vector["instance"],
        kind=vector.get("type", ""),
        details=vector.get("details"),
        refused=Refused(vector["refused"]) if "refused" in vector else None,
        retry_after_s=vector.get("retry_after_s"),
        maybe=vector.get("maybe", False),
    )
    assert block.decode() == "NATS/1.0\r\n{}\r\n".format("".join(f"{line}\r\n" for line in vector["headers"]))
    assert json.loads(body) == vector["body"]


def errors_decode(vector: Vector) -> None:
    """A reply as it is read: success, or an error of this class."""
    block, expected = block_of(vector), vector["error"]
    assert is_error(block) is (expected is not None)
    if expected is None:
        return
    error = decode_error(
        block,
        vector["payload"].encode(),
        service="orders",
        endpoint="place",
        attempts=1,
        raises=[_declared(name, fields) for name, fields in vector.get("declared", {}).items()],
    )
    advice = error.retry_after_s
    assert {
        "class": type(error).__name__,
        "status": error.status,
        "executed": error.executed,
        "refused": error.refused,
        "message": error.message,
        "type": error.type,
        "details": error.details,
        "retry_after_ms": None if advice is None else round(advice * 1000),
    } == expected
    assert (error.service, error.endpoint, error.attempts) == ("orders", "place", 1)


def idempotency_keys(vector: Vector) -> None:
    """What stands for a key in the store."""
    assert key_token(vector["caller"], vector["endpoint"], vector["key"].encode()) == vector["token"]


def idempotency_requests(vector: Vector) -> None:
    """What tells one request from another under the same key."""
    assert fingerprint(vector["content_type"].encode(), vector["body"].encode()) == vector["request"]


def _declared(name: str, fields: dict[str, str]) -> type[ApplicationError]:
    assert set(fields.values()) == {"string"}
    return type(
        name, (ApplicationError,), {"__annotations__": dict.fromkeys(fields, str), "__module__": __name__}
    )


# -- trace, time ------------------------------------------------------------------------------------


def traceparent(vector: Vector) -> None:
    """A parent as it is read, or none."""
    context = parse_traceparent(vector["value"])
    assert (None if context is None else context._asdict()) == vector["context"]


def baggage(vector: Vector) -> None:
    """Members as they are read."""
    assert parse_baggage(vector["value"]) == vector["members"]


def timeouts_to_wire(vector: Vector) -> None:
    """What is left, in whole milliseconds."""
    assert to_wire_ms(vector["remaining_s"]) == vector["timeout_ms"]


def timeouts_valid(vector: Vector) -> None:
    """What can be a timeout."""
    assert refuses(ConfigError, check_timeout, "here", vector["timeout_s"]) is not vector["valid"]


def deadlines(vector: Vector) -> None:
    """The sooner of one's own and the parent's."""
    found = deadline_for(vector["now_s"], vector["timeout_s"], vector["parent_deadline_s"])
    assert found == pytest.approx(vector["deadline_s"])


def arrivals(vector: Vector) -> None:
    """Messages of one vector arrive at one instance, one after the other."""
    gate, series = (
        DeadlineGate(vector["default_timeout_s"], AgeGauge()),
        Stats().series("in", "s", "e", "web"),
    )
    for message in vector["messages"]:
        lines = "".join(f"{name}: {value}\r\n" for name, value in message["headers"].items())
        call = Arrival(
            caller="web",
            series=series,
            reply=message["reply"],
            headers=f"NATS/1.0\r\n{lines}\r\n".encode(),
            payload=b"",
            received=message["received_s"],
        )
        call.stall_s = message["stall_s"]
        refusal = gate.enter(call)
        if "refused" in message:
            assert refusal is not None, message
            assert {"status": refusal.status, "refused": refusal.refused} == message["refused"]
        else:
            assert refusal is None, message
            # The base may rise by 200 ppm of the time between two messages.
            assert call.deadline - call.received == pytest.approx(message["remaining_s"], abs=0.002)


# -- bodies -----------------------------------------------------------------------------------------


def _body(vector: Vector) -> bytes:
    return vector["text"].encode() if "text" in vector else json.dumps(vector["body"]).encode()


def presence(vector: Vector) -> None:
    """A body that is read and written again as it was, or refused."""
    _, namespace, kind, service, instance = vector["subject"].split(".")
    assert kind == "presence"
    said = {"service": service, "instance": instance, "namespace": namespace}
    if not vector["valid"]:
        assert refuses(CodecError, messages.decode, _body(vector), **said)
        return
    announcement = messages.decode(_body(vector), **said)
    written = json.loads(messages.encode(announcement))
    for name, value in vector["body"].items():
        if name == "endpoints":  # fields left out are written with their defaults
            assert all(
                given.items() <= full.items() for given, full in zip(value, written[name], strict=True)
            )
        elif name == "load":
            assert value.items() <= written[name].items()
        elif name in written:
            assert written[name] == value, name
    assert set(vector["body"]) - set(written) <= {"mood"}


def acks(vector: Vector) -> None:
    """An acknowledgement as operators read it: believed whole, or not at all."""
    _, namespace, _, _, service, instance = vector["subject"].split(".")
    read = partial(decode_ack, service=service, instance=instance, namespace=namespace)
    assert refuses(CodecError, read, _body(vector)) is not vector["valid"]


def audit(vector: Vector) -> None:
    """A record as its readers take it: believed whole, or not at all."""
    _, namespace, _, key = vector["subject"].split(".", 3)
    writer = writer_of(key)
    assert writer is not None
    read = partial(decode_record, writer=writer, namespace=namespace)
    assert refuses(CodecError, read, _body(vector)) is not vector["valid"]


def policy_values(vector: Vector) -> None:
    """What stands under a key of the policy bucket, as members read it."""
    read = partial(read_document, vector["key"], vector["value"].encode(), 1)
    refused = refuses(PolicyError, partial(read, namespace=vector.get("namespace", "default")))
    assert refused is not vector["accepted"]


def stats(vector: Vector) -> None:
    """A body whose totals add up, or one that is refused."""
    _, namespace, telemetry, kind, service, instance = vector["subject"].split(".")
    assert (telemetry, kind) == ("telemetry", "stats")
    said = {"service": service, "instance": instance, "namespace": namespace}
    if not vector["valid"]:
        assert refuses(CodecError, decode_stats, _body(vector), **said)
        return
    message = decode_stats(_body(vector), **said)
    answered = [series for series in message.series if series.side == "in"]
    errors = sum(
        count for series in answered for status, count in series.statuses.items() if status in FAILURES
    )
    assert {"requests": sum(series.requests for series in answered), "errors": errors} == vector["totals"]
    written = json.loads(json.dumps(msgspec.to_builtins(message)))
    assert all(written[name] == value for name, value in vector["body"].items() if name != "mood")


def events(vector: Vector) -> None:
    """An event that is read as it was written, or refused."""
    _, namespace, telemetry, kind, service, instance = vector["subject"].split(".")
    assert (telemetry, kind) == ("telemetry", "event")
    said = {"service": service, "instance": instance, "namespace": namespace}
    if not vector["valid"]:
        assert refuses(CodecError, decode_event, _body(vector), **said)
        return
    read = msgspec.to_builtins(decode_event(_body(vector), **said))
    assert all(read[name] == value for name, value in vector["body"].items() if name != "mood")


def slow_calls(vector: Vector) -> None:
    """A slow call that is read as it was written, or refused."""
    _, namespace, telemetry, kind, service, instance = vector["subject"].split(".")
    assert (telemetry, kind) == ("telemetry", "slow")
    said = {"service": service, "instance": instance, "namespace": namespace}
    if not vector["valid"]:
        assert refuses(CodecError, decode_slow, _body(vector), **said)
        return
    read = json.loads(json.dumps(msgspec.to_builtins(decode_slow(_body(vector), **said))))
    assert all(read[name] == value for name, value in vector["body"].items() if name != "mood")


def slow_answers(vector: Vector) -> None:
    """What an instance keeps, and of which endpoints it cannot say yet what is slow."""
    if not vector["valid"]:
        assert refuses(CodecError, decode_slow_answer, _body(vector))
        return
    assert decode_slow_answer(_body(vector)).learning == vector["learning"]


def spans(vector: Vector) -> None:
    """Spans that are read as they were written, each with who did not let its call through, or refused."""
    _, namespace, telemetry, kind, service, instance = vector["subject"].split(".")
    assert (telemetry, kind) == ("telemetry", "span")
    said = {"service": service, "instance": instance, "namespace": namespace}
    if not vector["valid"]:
        assert refuses(CodecError, decode_spans, _body(vector), **said)
        return
    message = decode_spans(_body(vector), **said)
    assert [each.refused for each in message.spans] == vector["refused"]
    assert message.dropped == vector["body"].get("dropped", 0)
    assert message.dropped_for == vector["body"].get("dropped_for", {})
    for read, written in zip(message.spans, vector["body"]["spans"], strict=True):
        assert all(getattr(read, name) == value for name, value in written.items() if name != "mood")


def tap_wishes(vector: Vector) -> None:
    """What an observer of calls may want."""
    body = b"" if vector["body"] is None else _body(vector)
    if vector["wish"] is None:
        assert refuses(CodecError, decode_wish, body)
        return
    wish = json.loads(json.dumps(msgspec.to_builtins(decode_wish(body))))
    assert wish == {"only": {}, "body": 0, "why": "", **vector["wish"], "wire": 1}


def tap_samples(vector: Vector) -> None:
    """Which traces belong to a sample."""
    assert sampled(vector["trace"], vector["share"]) is vector["sampled"]


def taps(vector: Vector) -> None:
    """Calls that are read as they were written, or refused."""
    _, namespace, telemetry, kind, service, instance = vector["subject"].split(".")
    assert (telemetry, kind) == ("telemetry", "tap")
    said = {"service": service, "instance": instance, "namespace": namespace}
    if not vector["valid"]:
        assert refuses(CodecError, decode_tap, _body(vector), **said)
        return
    read = json.loads(json.dumps(msgspec.to_builtins(decode_tap(_body(vector), **said))))
    assert all(read[name] == value for name, value in vector["body"].items() if name != "mood")


def commands(vector: Vector) -> None:
    """What an operator may say, what is answered with a reason, and what is no command."""
    try:
        decode_command(_body(vector))
        outcome = "obeyed"
    except ConfigError:
        outcome = "answered"
    except CodecError:
        outcome = "dropped"
    assert outcome == vector["outcome"]


def weights(vector: Vector) -> None:
    """What an instance's label says; what cannot be read counts as 1."""
    assert weight_of(vector["labels"]) == vector["weight"]


def verdicts(vector: Vector) -> None:
    """Who says what of whom, or nothing."""
    about, _, caller = vector["subject"].removeprefix("mesh.default.verdict.orders.").partition(".")
    heard = read_verdict(about, caller, _body(vector))
    assert (None if heard is None else heard._asdict()) == vector["heard"]


def services_api_verbs(vector: Vector) -> None:
    """Which questions an instance answers."""
    verb = parse_verb(vector["subject"], vector["service"], vector["instance"])
    assert (None if verb is None else verb.value) == vector["verb"]


def services_api_endpoints(vector: Vector) -> None:
    """What INFO says of an endpoint."""
    given = dict(vector["given"])
    subjects = Subjects(given.pop("namespace"))
    document = mesh_endpoint(subjects, given.pop("service"), given.pop("endpoint"), **given)
    assert msgspec.to_builtins(document) == vector["document"]


def services_api_peers(vector: Vector) -> None:
    """Of which peers a member says that it has not heard them for long."""
    assert msgspec.to_builtins(overdue_in(vector["metadata"])) == vector["peers"]


def services_api_calls(vector: Vector) -> None:
    """Which services a member says it calls."""
    assert called_in(vector["metadata"]) == vector["services"]


#: How each section is checked. A section without an entry here, or an entry without a section, fails.
CHECKS: dict[str, Callable[[Vector], None]] = {
    check.__name__: check
    for check in (
        names, subjects_build, subjects_parse, plain_subjects, inboxes_parse, inboxes_believed, plain_replies,
        header_fields, header_pairs, header_numbers, server_status, loads, content_types,
        statuses, status_of_code, errors_encode, errors_decode, idempotency_keys, idempotency_requests,
        traceparent, baggage, timeouts_to_wire, timeouts_valid, deadlines, arrivals,
        presence, acks, audit, policy_values, stats, events, slow_calls, slow_answers,
        spans, tap_wishes, tap_samples, taps, commands,
        weights, verdicts, services_api_verbs, services_api_endpoints,
        services_api_peers, services_api_calls,
    )
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "vector"),
    [
        pytest.param(section, vector, id=f"{section}: {vector.get('case')}")
        for section, vectors in SECTIONS.items()
        for vector in vectors
    ],
)
def test_the_implementation_agrees_with_the_vector(section: str, vector: Vector) -> None:
    """What the contract says of this input is what we make of it."""
    assert section in CHECKS, f"nothing checks the section {section!r}"
    CHECKS[section](vector)


def test_every_section_is_known_and_filled() -> None:
    """A section that is missing, empty or unknown would be a rule that nobody checks."""
    assert DOCUMENT["wire"] == WIRE_VERSION
    assert set(SECTIONS) == set(CHECKS)
    assert all(len(vectors) >= 3 for vectors in SECTIONS.values())


def test_every_vector_says_what_it_is_about() -> None:
    """Each case has a text of its own within its section."""
    for section, vectors in SECTIONS.items():
        cases = [vector.get("case") for vector in vectors]
        assert all(isinstance(case, str) and case for case in cases), section
        assert len(cases) == len(set(cases)), section


def test_every_status_and_refusal_has_its_vectors() -> None:
    """A new status or reason needs a line in the contract."""
    assert {vector["status"] for vector in SECTIONS["statuses"]} == set(Status)
    refused = {vector["error"]["refused"] for vector in SECTIONS["errors_decode"] if vector["error"]}
    assert refused - {None} == set(Refused)
