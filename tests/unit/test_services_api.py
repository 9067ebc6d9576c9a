"""The NATS Services API: documents any client can read, and other programs' documents read with patience."""

import datetime
import json
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from nats_mesh.discovery.services_api import (
    MAX_SCHEMA_BYTES,
    EndpointCounters,
    EndpointDoc,
    ServiceDoc,
    Verb,
    info_response,
    listen_subjects,
    mesh_endpoint,
    parse_info,
    parse_ping,
    parse_stats,
    parse_verb,
    ping_response,
    request_subject,
    service_metadata,
    stats_response,
)
from nats_mesh.discovery.services_replies import MAX_LISTED_ENDPOINTS
from nats_mesh.errors import CodecError, ConfigError
from nats_mesh.wire.subjects import Subjects
from tests.unit import services_api_schemas as schemas

STARTED = "2025-01-31T12:00:00.000000Z"
SCHEMA = {"type": "object", "properties": {"sku": {"type": "string"}}}

names = st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True)
metadata = st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=4)
endpoints = st.builds(
    EndpointDoc,
    name=names,
    subject=st.from_regex(r"[a-z$]{1,9}(\.[A-Za-z0-9_-]{1,9}){0,4}", fullmatch=True),
    queue_group=names,
    metadata=metadata,
)
services = st.builds(
    ServiceDoc,
    name=names,
    id=names,
    version=st.sampled_from(["0.0.0", "1.2.3-rc.1+b5"]),
    started=st.just(STARTED),
    description=st.text(max_size=40),
    metadata=metadata,
    endpoints=st.lists(endpoints, max_size=3).map(tuple),
)
counters = st.builds(
    EndpointCounters,
    requests=st.integers(0, 10**12),
    errors=st.integers(0, 10**12),
    busy_s=st.floats(0, 10**8),
    last_error=st.text(max_size=40),
)


@pytest.fixture
def orders() -> ServiceDoc:
    """A mesh service with an endpoint of its own and one of an existing system."""
    subjects = Subjects("default")
    return ServiceDoc(
        name="orders",
        id="NUID1",
        version="1.2.0",
        started=STARTED,
        description="takes orders",
        metadata=service_metadata("default", {"zone": "eu-1"}),
        endpoints=(
            mesh_endpoint(
                subjects,
                "orders",
                "place",
                timeout_s=2.0,
                idempotent=True,
                concurrency=64,
                schema_hash="abc123",
                request_schema=SCHEMA,
                response_schema=SCHEMA,
            ),
            mesh_endpoint(subjects, "orders", "legacy", subject="old.orders", queue="workers"),
        ),
    )


# -- what we say ------------------------------------------------------------------------------------


@given(services, counters)
def test_every_document_is_valid_by_the_schemas(service: ServiceDoc, count: EndpointCounters) -> None:
    """Whatever can be described gives schema-valid documents, which read back as what was described."""
    stats = stats_response(service, {each.name: count for each in service.endpoints})
    for document, schema in (
        (ping_response(service), schemas.PING),
        (info_response(service), schemas.INFO),
        (stats, schemas.STATS),
    ):
        jsonschema.Draft7Validator(schema).validate(json.loads(document))
    assert parse_ping(ping_response(service)).id == service.id
    assert [e.subject for e in parse_info(info_response(service)).endpoints] == [
        e.subject for e in service.endpoints
    ]


def test_info_advertises_what_foreign_clients_can_publish_to(orders: ServiceDoc) -> None:
    """The subject is concrete and ends in `anonymous`; the template and the rest stand in the metadata."""
    place, legacy = json.loads(info_response(orders))["endpoints"]
    assert place["subject"] == "mesh.default.rpc.orders.all.place.anonymous"
    assert place["queue_group"] == "q"
    assert {k: v for k, v in place["metadata"].items() if "schema.re" not in k} == {
        "mesh.wire": "1",
        "mesh.namespace": "default",
        "mesh.subject": "mesh.default.rpc.orders.all.place.{caller}",
        "mesh.timeout_ms": "2000",
        "mesh.idempotent": "true",
        "mesh.concurrency": "64",
        "mesh.schema.hash": "abc123",
    }
    assert json.loads(place["metadata"]["mesh.schema.request"]) == SCHEMA
    assert json.loads(place["metadata"]["mesh.schema.response"]) == SCHEMA
    assert (legacy["subject"], legacy["queue_group"]) == ("old.orders", "workers")
    assert "mesh.subject" not in legacy["metadata"]


def test_service_metadata_says_mesh_wire_and_namespace(orders: ServiceDoc) -> None:
    """Labels are metadata; what a mesh caller looks for cannot be covered by a label."""
    said = json.loads(ping_response(orders))["metadata"]
    assert said == {"zone": "eu-1", "mesh.wire": "1", "mesh.namespace": "default", "mesh.kind": "service"}
    assert service_metadata("n", {"mesh.wire": "9"})["mesh.wire"] == "1"


def test_an_oversized_schema_is_left_out_and_named() -> None:
    """A schema that would burst the document gives way, and the metadata says which and how large."""
    large = {"description": "x" * MAX_SCHEMA_BYTES}
    endpoint = mesh_endpoint(Subjects("n"), "s", "e", request_schema=large, response_schema=SCHEMA)
    assert "mesh.schema.request" not in endpoint.metadata
    assert "mesh.schema.response" in endpoint.metadata
    assert endpoint.metadata["mesh.schema.omitted"].startswith("request: ")


def test_statistics_are_whole_nanoseconds(orders: ServiceDoc) -> None:
    """Times are integers in nanoseconds, the average is truncated, and without requests it is 0."""
    count = EndpointCounters(requests=3, errors=1, busy_s=0.01, last_error="INTERNAL: boom")
    place, legacy = json.loads(stats_response(orders, {"place": count}))["endpoints"]
    assert (place["processing_time"], place["average_processing_time"]) == (10_000_000, 3_333_333)
    assert (place["num_requests"], place["num_errors"], place["last_error"]) == (3, 1, "INTERNAL: boom")
    assert (legacy["num_requests"], legacy["average_processing_time"], legacy["last_error"]) == (0, 0, "")
    assert legacy["data"] == {}


def test_the_strictest_decoder_in_the_field_reads_them(orders: ServiceDoc) -> None:
    """nats-py's own decoder, which misses no field and insists on a fraction of seconds, takes all three."""
    assert ServicePing.from_dict(json.loads(ping_response(orders))).id == "NUID1"
    assert ServiceInfo.from_dict(json.loads(info_response(orders))).description == "takes orders"
    stats = ServiceStats.from_dict(json.loads(stats_response(orders, {})))
    assert stats.started == datetime.datetime(2025, 1, 31, 12)  # noqa: DTZ001  # naive, as nats-py reads it


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a.b"},
        {"name": ""},
        {"id": "a b"},
        {"version": "1.0"},
        {"started": "2025-01-31T12:00:00Z"},
        {"started": "2025-01-31T12:00:00.123456789Z"},
        {"metadata": {"a": 1}},
    ],
)
def test_a_service_that_cannot_be_described_validly_is_refused(
    changes: dict[str, Any], orders: ServiceDoc
) -> None:
    """One invalid document makes whole listings fail elsewhere, so it is never made."""
    with pytest.raises(ConfigError):
        msgspec.structs.replace(orders, **changes)


@pytest.mark.parametrize("subject", ["a b", "", "a.*", "a.>", ".a", "a\r\n"])
def test_an_endpoints_subject_is_concrete(subject: str) -> None:
    """Clients publish to it verbatim."""
    with pytest.raises(ConfigError, match="subject"):
        mesh_endpoint(Subjects("n"), "s", "e", subject=subject)


# -- verbs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "verb"),
    [
        ("$SRV.PING", Verb.PING),
        ("$SRV.INFO.orders", Verb.INFO),
        ("$SRV.STATS.orders.NUID1", Verb.STATS),
        ("$SRV.PING.Orders", None),
        ("$SRV.PING.orders.nuid1", None),
        ("$SRV.PING.cart", None),
        ("$SRV.PING.cart.NUID1", None),
        ("$SRV.ping", None),
        ("$SRV.SCHEMA", None),
        ("$SRV.SCHEMA.orders", None),
        ("$srv.PING", None),
        ("$SRV", None),
        ("$SRV.PING.orders.NUID1.x", None),
        ("$SRV..orders", None),
        ("", None),
    ],
)
def test_a_verb_is_for_all_for_the_name_or_for_the_id(subject: str, verb: Verb | None) -> None:
    """Name, id and verb match exactly, letter by letter; anything else is somebody else's question."""
    assert parse_verb(subject, "orders", "NUID1") is verb


def test_three_subscriptions_serve_all_verbs() -> None:
    """Every question of the API arrives on exactly one of them."""
    assert listen_subjects("orders", "NUID1") == ("$SRV.*", "$SRV.*.orders", "$SRV.*.orders.NUID1")
    for asked in ((), ("orders",), ("orders", "NUID1")):
        for verb in Verb:
            assert parse_verb(request_subject(verb, *asked), "orders", "NUID1") is verb


@pytest.mark.parametrize("asked", [("a.b",), ("orders", "a.>"), ("*",), (None, "NUID1")])
def test_questions_are_asked_of_real_names(asked: tuple[str, ...]) -> None:
    """A wildcard or an id without its service would ask the wrong ones."""
    with pytest.raises(ConfigError):
        request_subject(Verb.PING, *asked)


# -- what others say --------------------------------------------------------------------------------


def document(kind: str, **changes: Any) -> bytes:
    """What a foreign service answers, with a few fields changed."""
    fields = {"type": f"io.nats.micro.v1.{kind}_response", "name": "echo", "id": "JS1", "version": "0.1.0"}
    return json.dumps(fields | changes).encode()


def test_null_and_missing_fields_are_read_as_empty() -> None:
    """Python services send a null description, JavaScript ones no metadata per endpoint."""
    info = parse_info(
        document(
            "info",
            description=None,
            metadata=None,
            endpoints=[
                {"name": "echo", "subject": "echo.do"},
                {"name": None, "subject": "b", "metadata": []},
            ],
        )
    )
    assert (info.description, info.metadata, info.omitted) == ("", {}, 0)
    assert [(e.name, e.subject, e.queue_group, e.metadata) for e in info.endpoints] == [
        ("echo", "echo.do", "", {}),
        ("", "b", "", {}),
    ]
    assert parse_info(document("info")).endpoints == ()
    assert parse_ping(b'{"name":"echo","id":"x"}').version == ""


def test_statistics_of_other_clients_are_read() -> None:
    """Averages with a fraction, absent errors and any `data` are no obstacle."""
    stats = parse_stats(
        document(
            "stats",
            started="2025-01-31T13:00:00.123456789+01:00",
            endpoints=[
                {
                    "name": "e",
                    "subject": "e",
                    "num_requests": 3,
                    "processing_time": 1_000_000,
                    "average_processing_time": 333_333.33,
                    "data": [1, {"x": None}],
                },
                {
                    "name": "f",
                    "subject": "f",
                    "num_requests": "many",
                    "num_errors": -4,
                    "processing_time": 10**30,
                },
            ],
        )
    )
    assert stats.started == datetime.datetime(2025, 1, 31, 12, 0, 0, 123456, tzinfo=datetime.UTC)
    e, f = stats.endpoints
    assert (e.requests, e.errors, e.last_error, e.busy_ns, e.average_ns) == (3, 0, "", 1_000_000, 333_333)
    assert e.data == [1, {"x": None}]
    assert (f.requests, f.errors) == (0, 0)
    assert 0 <= f.busy_ns < 2**63


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("2025-01-31T12:00:05Z", 5),
        ("2025-01-31T12:00:05.1Z", 5),
        ("2025-01-31t12:00:05.123456789z", 5),
        ("2025-01-31T06:30:07-05:30", 7),
        ("2025-02-30T12:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("2025-01-31T12:00:60Z", None),
        ("2025-01-31T12:00:05", None),
        ("yesterday", None),
        (1738324800, None),
        (None, None),
    ],
)
def test_instants_are_read_or_left_open(text: object, second: int | None) -> None:
    """Nanoseconds and offsets are understood; what is no instant is none, and never an error."""
    started = parse_stats(document("stats", started=text)).started
    assert (None if started is None else started.second) == second
    assert started is None or (started.hour == 12 and started.tzinfo is datetime.UTC)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        document("stats"),
        document("info", type="error"),
        document("info", type=None),
        document("info", name="two words"),
        document("info", name=""),
        document("info", name=None),
        document("info", id=5),
        document("info", id="a.b"),
        document("info", id="*"),
        document("info", id="x\n"),
        document("info", name="x" * 300),
    ],
)
def test_what_is_no_answer_is_an_error(data: bytes) -> None:
    """Without a usable name and id, or with another document's type, there is nothing to list."""
    with pytest.raises(CodecError):
        parse_info(data)


def test_endpoints_nobody_could_call_are_counted_not_listed() -> None:
    """A subject that is none, or longer on the wire than fits, and more endpoints than are read, show as a number."""
    subjects = ("a b", "", None, "a..b", "a\n", "\u00fc" * 513, "😀" * 1000)
    odd: list[Any] = [{"name": "x", "subject": subject} for subject in subjects]
    odd += ["text", None]
    many = [{"name": "y", "subject": "y"}] * MAX_LISTED_ENDPOINTS
    info = parse_info(document("info", endpoints=odd + many))
    assert (len(info.endpoints), info.omitted) == (MAX_LISTED_ENDPOINTS - len(odd), 2 * len(odd))


def test_foreign_texts_cannot_drive_a_terminal() -> None:
    """Control characters of descriptions, errors and metadata do not come through."""
    info = parse_info(document("info", description="\x1b[2Jhi\nthere", metadata={"\x07": "\x9b31m", "n": 5}))
    assert info.description == " [2Jhi there"
    assert info.metadata == {" ": " 31m"}


@given(
    st.dictionaries(
        st.sampled_from(["type", "name", "id", "version", "metadata", "endpoints", "started", "description"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    )
)
def test_any_document_is_read_or_refused(fields: dict[str, Any]) -> None:
    """No JSON object whatever makes the readers fail in another way."""
    for parse, kind in ((parse_ping, "ping"), (parse_info, "info"), (parse_stats, "stats")):
        for data in (json.dumps(fields).encode(), document(kind, **{"endpoints": [fields]} | fields)):
            try:
                parse(data)
            except CodecError:
                continue
