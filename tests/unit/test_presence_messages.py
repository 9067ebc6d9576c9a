"""The presence body: what travels, what is refused, and how often it is sent."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.presence import MAX_ENDPOINTS, MAX_INTERVAL_S, MAX_LABELS
from nats_mesh.discovery.messages import (
    BASE_INTERVAL_S,
    JITTER,
    MAX_BEATS_PER_S,
    MAX_BYTES,
    Announcement,
    EndpointInfo,
    Kind,
    Load,
    Rejection,
    State,
    beat_interval_s,
    check_labels,
    check_version,
    decode,
    encode,
    nominal_interval_s,
    rfc3339,
)
from nats_mesh.errors import CodecError, ConfigError

BODY: dict[str, Any] = {
    "type": "beat",
    "service": "orders",
    "instance": "A1",
    "name": "host.example-17",
    "version": "1.0.0",
    "namespace": "default",
    "seq": 3,
    "started": "2025-01-01T00:00:00.000000Z",
    "interval_s": 5,
}


def body(**changes: Any) -> bytes:
    """A valid body with a few fields changed."""
    return json.dumps(BODY | changes).encode()


def full() -> Announcement:
    """An announcement that uses every field."""
    return Announcement(
        type=Kind.JOIN,
        service="orders",
        instance="A1",
        name="host-17",
        version="1.2.0-rc.1+build.5",
        namespace="default",
        seq=1,
        started="2025-01-01T00:00:00.123456Z",
        interval_s=5.0,
        state=State.DRAINING,
        labels={"zone": "eu-1", "k8s.io/app": "Bestellungen ü"},
        endpoints=(
            EndpointInfo(name="place", timeout_ms=2000, idempotent=True, concurrency=64, schema="ab12"),
            EndpointInfo(name="old", subject="legacy.orders.place"),
        ),
        load=Load(in_flight=3, limit=256, requests=10, errors=1),
        revision=(2, 41),
        rejections=(Rejection(policy="Route.reviews", reason="no subset v9", revision=(2, 42)),),
    )


def test_what_is_sent_is_what_is_read() -> None:
    """Every field survives the way; the wire version is written, not implied."""
    data = encode(full())
    assert decode(data, service="orders", instance="A1", namespace="default") == full()
    assert json.loads(data)["wire"] == 1


def test_unknown_fields_are_ignored() -> None:
    """A newer sender may say more."""
    assert decode(body(novelty={"deep": [1, None]}, load={"in_flight": 2, "gpu": 1})).load.in_flight == 2


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"type": "hello"}, "type"),
        ({"type": None}, "type"),
        ({"service": "a.b"}, "service"),
        ({"service": "orders\n"}, "service"),
        ({"service": ""}, "service"),
        ({"instance": "x" * 64}, "instance"),
        ({"instance": "all"}, "reserved"),
        ({"service": "anonymous"}, "reserved"),
        ({"name": "two words"}, "name"),
        ({"name": "\x1b[31mred"}, "name"),
        ({"version": "1.0"}, "version"),
        ({"version": "01.0.0"}, "version"),
        ({"namespace": "*"}, "namespace"),
        ({"seq": 0}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 10**30}, "seq"),
        ({"started": "yesterday"}, "started"),
        ({"started": "2025-01-01T00:00:00+02:00"}, "started"),
        ({"interval_s": 0}, "interval_s"),
        ({"interval_s": MAX_INTERVAL_S + 1}, "interval_s"),
        ({"interval_s": "5"}, "interval_s"),
        ({"state": "gone"}, "state"),
        ({"labels": {"a": 1}}, "labels"),
        ({"labels": {"mesh.wire": "9"}}, "labels"),
        ({"labels": {"a": "x" * 256}}, "labels"),
        ({"labels": {"a": "\x07"}}, "labels"),
        ({"labels": {f"l{n}": "" for n in range(MAX_LABELS + 1)}}, "labels"),
        ({"endpoints": [{"name": "a b"}]}, r"endpoints\[0\].name"),
        ({"endpoints": [{"name": "a", "subject": "a b"}]}, "subject"),
        ({"endpoints": [{"name": "a"}] * (MAX_ENDPOINTS + 1)}, "endpoints"),
        ({"load": {"in_flight": -1}}, "in_flight"),
        ({"revision": [1]}, "revision"),
        ({"revision": [1, -1]}, "revision"),
        ({"rejections": [{"policy": "", "reason": "x"}]}, "policy"),
        ({"wire": 2}, "wire"),
    ],
)  # fmt: skip
def test_a_hostile_body_is_an_error_that_names_the_field(changes: dict[str, Any], where: str) -> None:
    """Whatever a body holds, it is decoded whole or refused with the place of the fault."""
    with pytest.raises(CodecError, match=where):
        decode(body(**changes))


@pytest.mark.parametrize("missing", sorted(BODY))
def test_what_identifies_an_instance_must_be_there(missing: str) -> None:
    """There is no default for who speaks, since when, and when again."""
    with pytest.raises(CodecError, match=missing):
        decode(json.dumps({k: v for k, v in BODY.items() if k != missing}).encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b'"join"', b"[" * 100_000, b'{"x":' * 50_000,
     b'{"interval_s":1e999}', b'{"type":"\\ud800"}'],
)  # fmt: skip
def test_bytes_that_are_no_announcement_are_errors(data: bytes) -> None:
    """Empty, truncated, too deep or plainly other bytes end in a typed error."""
    with pytest.raises(CodecError):
        decode(data)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_else(data: bytes) -> None:
    """Decoding returns an announcement or raises a CodecError."""
    with pytest.raises(CodecError):
        decode(data)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FIELDS = [*BODY, "labels", "endpoints", "load", "rejections", "revision", "wire", "state"]


@given(ANY_JSON, st.sampled_from(FIELDS))
def test_any_json_in_any_field_is_decoded_or_refused(value: Any, field: str) -> None:
    """No value in a field gets past the bounds: what decodes can be sent on as it is."""
    try:
        announcement = decode(body(**{field: value}))
    except CodecError:
        return
    assert decode(encode(announcement)) == announcement


def test_a_body_that_is_too_large_is_not_even_parsed() -> None:
    """The size is looked at first, in both directions."""
    with pytest.raises(CodecError, match="at most"):
        decode(b" " * (MAX_BYTES + 1))
    endpoints = tuple(EndpointInfo(name="e", subject="s" * 1000) for _ in range(MAX_BYTES // 1000))
    with pytest.raises(CodecError, match="at most"):
        encode(msgspec.structs.replace(full(), endpoints=endpoints))


def test_nobody_speaks_for_another() -> None:
    """The body must name the service, instance and namespace of its subject."""
    for claim in ({"service": "cart"}, {"instance": "B2"}, {"namespace": "other"}):
        subject: dict[str, Any] = {"service": "orders", "instance": "A1", "namespace": "default"} | claim
        with pytest.raises(CodecError, match="its subject says"):
            decode(body(), **subject)


def test_what_a_peer_would_refuse_is_not_sent() -> None:
    """Encoding checks the same bounds, so the mistake shows at its author."""
    with pytest.raises(CodecError, match="labels"):
        encode(msgspec.structs.replace(full(), labels={f"l{n}": "" for n in range(99)}))


# -- how often --------------------------------------------------------------------------------------


@given(st.integers(0, 200_000), st.floats(0, 1, exclude_max=True))
def test_beats_stay_within_their_promise_and_the_service_within_its_rate(count: int, rng: float) -> None:
    """A beat is 5 s ± 20 % apart; a service never sends more than 20 a second, up to the longest interval."""
    nominal = nominal_interval_s(count)
    assert nominal * (1 - JITTER) <= beat_interval_s(count, rng) <= nominal * (1 + JITTER)
    assert BASE_INTERVAL_S <= nominal <= MAX_INTERVAL_S
    if nominal < MAX_INTERVAL_S:
        assert count / nominal <= MAX_BEATS_PER_S + 1e-9


def test_small_services_beat_every_five_seconds() -> None:
    """Up to a hundred instances the interval is the short one; at a thousand it is ten times as long."""
    assert [nominal_interval_s(n) for n in (0, 1, 100, 1000)] == [5.0, 5.0, 5.0, 50.0]
    assert beat_interval_s(1, 0.0) == pytest.approx(4.0)
    assert beat_interval_s(1, 0.5) == pytest.approx(5.0)


# -- what services are made with --------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.0.0", "1.2.3", "1.0.0-alpha.1+exp.sha-5114f85", "10.20.30+7"])
def test_semver_is_accepted(version: str) -> None:
    """The strings that semver.org calls valid."""
    assert check_version(version) == version


@pytest.mark.parametrize(
    "version",
    ["1", "1.2", "v1.2.3", "1.2.3-", "1.2.3-01", "1.02.3", "1.2.3+", "1.2.3\n", "", " 1.2.3", 1, None,
     "1.2.3-" + "a" * 200, "1.2.٣"],
)  # fmt: skip
def test_other_versions_are_refused_with_an_example(version: object) -> None:
    """What foreign clients would choke on is a mistake at the start."""
    with pytest.raises(ConfigError, match=r"major\.minor\.patch"):
        check_version(version)


@pytest.mark.parametrize(
    "labels",
    [{"": "x"}, {"a b": "x"}, {"mesh.x": "x"}, {"a": "x" * 256}, {"a": "\n"}, {"a": 5},
     {f"l{n}": "" for n in range(MAX_LABELS + 1)}],
)  # fmt: skip
def test_labels_that_cannot_travel_are_refused(labels: dict[str, Any]) -> None:
    """The bounds of the wire are told when the service is made."""
    with pytest.raises(ConfigError, match="label"):
        check_labels(labels)


def test_instants_always_have_six_digits() -> None:
    """Decoders that insist on a fraction, and those that refuse nanoseconds, read the same text."""
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert rfc3339(1735689600.5) == "2025-01-01T00:00:00.500000Z"
