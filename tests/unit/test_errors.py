"""The error tree, and its journey: what a service raises is what a caller catches, whatever else comes back."""

from __future__ import annotations

import datetime
import pickle
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nats_mesh import (
    ApplicationError,
    CallError,
    CancelledByPeerError,
    CircuitOpenError,
    CodecError,
    ConfigError,
    DeadlineExceededError,
    DisconnectedError,
    Executed,
    MeshError,
    NoInstancesError,
    OverloadedError,
    PermissionDeniedError,
    PolicyError,
    RateLimitedError,
    Refused,
    RemoteError,
    Status,
)
from nats_mesh.wire.outcome import decode_error, encode_error, is_error

CODES = {
    "OK": 0, "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401, "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 412, "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501, "INTERNAL": 500,
    "UNAVAILABLE": 503, "DATA_LOSS": 500,
}  # fmt: skip
ERRORS = [status for status in Status if status is not Status.OK]


class OutOfStock(ApplicationError, status="FAILED_PRECONDITION"):
    """An error with fields."""

    sku: str
    left: int = 0


class SoldOut(OutOfStock):
    """One that inherits fields and status, and adds a field."""

    since: datetime.datetime | None = None
    kept: ClassVar[int] = 7


class Stubborn(ApplicationError, status="ABORTED"):
    """One whose constructor takes what it likes."""

    number: int

    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}", number=number)


class Nothing(ApplicationError):
    """One without status and fields."""


# -- statuses -----------------------------------------------------------------------------------------


def test_the_table_of_statuses() -> None:
    """Names and numbers are those of the wire's table, all seventeen."""
    assert {str(status): status.code for status in Status} == CODES


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "NOT_FOUND"),
        (409, "ABORTED"), (412, "FAILED_PRECONDITION"), (429, "RESOURCE_EXHAUSTED"), (499, "CANCELLED"),
        (500, "INTERNAL"), (501, "UNIMPLEMENTED"), (503, "UNAVAILABLE"), (504, "DEADLINE_EXCEEDED"),
        (0, "UNKNOWN"), (200, "UNKNOWN"), (418, "UNKNOWN"), (-1, "UNKNOWN"), (10**12, "UNKNOWN"),
    ],
)  # fmt: skip
def test_what_a_foreign_number_means(code: int, status: str) -> None:
    """A number that several statuses share means the least specific; one that none has is UNKNOWN."""
    assert Status.from_code(code) is Status(status)


@pytest.mark.parametrize(
    ("cls", "status", "executed"),
    [
        (CallError, "UNKNOWN", "maybe"),
        (CircuitOpenError, "UNAVAILABLE", "no"),
        (RateLimitedError, "RESOURCE_EXHAUSTED", "no"),
        (OverloadedError, "RESOURCE_EXHAUSTED", "no"),
        (NoInstancesError, "UNAVAILABLE", "no"),
        (DeadlineExceededError, "DEADLINE_EXCEEDED", "maybe"),
        (CancelledByPeerError, "CANCELLED", "maybe"),
        (DisconnectedError, "UNAVAILABLE", "maybe"),
        (PermissionDeniedError, "PERMISSION_DENIED", "no"),
        (RemoteError, "UNKNOWN", "yes"),
        (ApplicationError, "UNKNOWN", "yes"),
        (Nothing, "UNKNOWN", "yes"),
    ],
)
def test_every_call_error_states_its_outcome(cls: type[CallError], status: str, executed: str) -> None:
    """Status and whether the handler ran are data on each error; what is not said defaults to the careful side."""
    error = cls("text")
    assert (error.status, error.executed) == (Status(status), Executed(executed))
    assert isinstance(error, MeshError)
    assert error.message == "text"
    assert cls("text", status="DATA_LOSS", executed=Executed.MAYBE).status is Status.DATA_LOSS


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CallError("gone", service="shop", endpoint="buy"), "shop.buy: gone (UNKNOWN)"),
        (CallError("gone", service="shop"), "shop: gone (UNKNOWN)"),
        (CallError("gone", endpoint="plain.subject"), "plain.subject: gone (UNKNOWN)"),
        (NoInstancesError(), "NoInstancesError (UNAVAILABLE)"),
        (PolicyError("no such field", path="spec.x", line=3), "no such field"),
    ],
)
def test_errors_read_well(error: MeshError, text: str) -> None:
    """The text says where, what and which status."""
    assert str(error) == text


def test_a_policy_error_knows_its_place() -> None:
    """Path and line are there for whoever points at the mistake."""
    error = PolicyError("no such field", path="spec.x", line=3)
    assert (error.path, error.line) == ("spec.x", 3)


# -- application errors -------------------------------------------------------------------------------


def test_fields_are_attributes_and_details() -> None:
    """Annotated fields are checked, become attributes and travel; inherited ones count, class variables do not."""
    error = SoldOut("none", sku="b-17", since=datetime.datetime(2025, 1, 31, tzinfo=datetime.UTC))
    assert (error.sku, error.left, error.status) == ("b-17", 0, Status.FAILED_PRECONDITION)
    assert error.details == {"sku": "b-17", "left": 0, "since": "2025-01-31T00:00:00Z"}
    assert SoldOut.kept == 7


def test_without_a_text_the_fields_are_the_text() -> None:
    """An error that says nothing still tells a reader of a log what it was."""
    assert OutOfStock(sku="b-17").message == "sku='b-17', left=0"
    assert Nothing().message == "Nothing"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: OutOfStock("x"), "OutOfStock: .*missing required field `sku`"),
        (lambda: OutOfStock("x", sku=7), r"OutOfStock: Expected `str`, got `int`.*\$\.sku"),
        (lambda: OutOfStock("x", sku="a", colour=1), "has no field colour; its fields are: left, sku"),
        (lambda: Nothing("x", a=1), "has no field a; its fields are: none"),
        (
            lambda: type("E", (ApplicationError,), {}, status="NOPE"),
            "'NOPE' is no status; use one of OK, CANCELLED",
        ),
        (lambda: type("E", (ApplicationError,), {}, status="OK"), "cannot have the status OK"),
        (
            lambda: type("E", (ApplicationError,), {"__annotations__": {"executed": int}})(),
            r"E\.executed: this name is taken",
        ),
        (
            lambda: type("E", (ApplicationError,), {"__annotations__": {"status": str}})(),
            r"E\.status: this name is taken",
        ),
    ],
)
def test_mistakes_in_an_error_are_said_where_it_is_made(make: Any, reason: str) -> None:
    """A missing, unknown or wrongly typed field, and a definition that cannot work, are ConfigErrors."""
    with pytest.raises(ConfigError, match=reason):
        make()


def test_the_base_class_takes_any_status() -> None:
    """Where a class of one's own is too much, status and details can be given directly."""
    error = ApplicationError("gone", status="NOT_FOUND", details={"id": 7})
    assert (error.status, error.details) == (Status.NOT_FOUND, {"id": 7})
    with pytest.raises(ValueError, match="NOPE"):
        ApplicationError("gone", status="NOPE")


# -- the journey --------------------------------------------------------------------------------------


def _decoded(block: bytes, body: bytes, raises: tuple[type[Exception], ...] = ()) -> CallError:
    return decode_error(block, body, service="shop", endpoint="buy", attempts=2, raises=raises)


texts = st.text(st.characters(blacklist_categories=["Cs"]))
details = st.dictionaries(
    st.text(max_size=5), st.none() | st.integers(-9, 9) | st.text(max_size=5), max_size=3
)


@given(
    status=st.sampled_from(ERRORS),
    message=texts,
    details=details,
    refused=st.none() | st.sampled_from(list(Refused)),
    retry_after_s=st.none() | st.integers(0, 10_000),
)
@example(
    status=Status.ABORTED,
    message="a\r\nMesh-Status: OK\r\n\r\n{}",
    details={},
    refused=None,
    retry_after_s=None,
)
def test_errors_round_trip(
    status: Status, message: str, details: dict[str, Any], refused: Refused | None, retry_after_s: int | None
) -> None:
    """Status, text, details, refusal and advice come back exactly; the header block has one line of each."""
    block, body = encode_error(
        status, message, instance="I1", details=details, refused=refused, retry_after_s=retry_after_s
    )
    assert is_error(block)
    error = _decoded(block, body)
    assert (error.status, error.message, error.details) == (status, message, details)
    assert (error.refused, error.retry_after_s) == (refused, retry_after_s)
    assert error.executed is (Executed.YES if refused is None else Executed.NO)
    assert (error.service, error.endpoint, error.attempts) == ("shop", "buy", 2)
    lines = block.split(b"\r\n")
    assert lines[0] == b"NATS/1.0"
    assert lines[-2:] == [b"", b""]
    assert len(lines) == 7 + (refused is not None) + (retry_after_s is not None)
    assert block.count(b"\n") == block.count(b"\r") == len(lines) - 1
    assert f"Nats-Service-Error-Code: {CODES[status]}".encode() in lines
    [description] = [line for line in lines if line.startswith(b"Nats-Service-Error:")]
    assert description.partition(b":")[2].strip(), "ADR-32: never empty"


@pytest.mark.parametrize("cls", [OutOfStock, SoldOut])
def test_a_typed_error_round_trips(cls: type[OutOfStock]) -> None:
    """With its class among those expected, an error comes back as that class with its fields."""
    error = cls("none left", sku="b-17", left=3)
    block, body = encode_error(
        error.status, error.message, instance="I1", kind=cls.__name__, details=dict(error.details)
    )
    again = _decoded(block, body, (Nothing, OutOfStock, SoldOut, ValueError))
    assert type(again) is cls
    assert (again.sku, again.left, again.message) == ("b-17", 3, "none left")
    assert again.status is Status.FAILED_PRECONDITION
    assert type(_decoded(block, body)) is RemoteError


def test_a_constructor_of_its_own_does_not_matter() -> None:
    """A class whose constructor takes something else arrives as itself nevertheless."""
    error = Stubborn(7)
    block, body = encode_error(
        error.status, error.message, instance="I1", kind="Stubborn", details=dict(error.details)
    )
    again = _decoded(block, body, (Stubborn,))
    assert type(again) is Stubborn
    assert (again.message, again.number, again.status) == ("number 7", 7, Status.ABORTED)


@pytest.mark.parametrize(
    ("kind", "details", "raises"),
    [
        ("OutOfStock", {}, (OutOfStock,)),
        ("OutOfStock", {"sku": 7}, (OutOfStock,)),
        ("OutOfStock", {"sku": None}, (OutOfStock,)),
        ("ValueError", {}, (ValueError,)),
        ("RemoteError", {}, (RemoteError,)),
        ("", {}, (OutOfStock,)),
    ],
)
def test_a_class_that_does_not_fit_is_left(
    kind: str, details: dict[str, Any], raises: tuple[type[Exception], ...]
) -> None:
    """Where the expected class cannot be made of what came, the caller gets a RemoteError with all of it."""
    block, body = encode_error(Status.ABORTED, "text", instance="I1", kind=kind, details=details)
    error = _decoded(block, body, raises)
    assert type(error) is RemoteError
    assert (error.status, error.message, error.type, error.details) == (Status.ABORTED, "text", kind, details)


@pytest.mark.parametrize(
    ("refused", "status", "cls"),
    [
        (Refused.DRAINING, Status.UNAVAILABLE, OverloadedError),
        (Refused.CONCURRENCY, Status.RESOURCE_EXHAUSTED, OverloadedError),
        (Refused.RATE, Status.RESOURCE_EXHAUSTED, RateLimitedError),
        (Refused.QUOTA, Status.RESOURCE_EXHAUSTED, RateLimitedError),
        (Refused.ACCESS, Status.PERMISSION_DENIED, PermissionDeniedError),
        (Refused.AUTHN, Status.UNAUTHENTICATED, PermissionDeniedError),
        (Refused.DEADLINE, Status.DEADLINE_EXCEEDED, DeadlineExceededError),
        (Refused.UNIMPLEMENTED, Status.UNIMPLEMENTED, RemoteError),
        (Refused.IDEMPOTENCY, Status.UNAVAILABLE, RemoteError),
    ],
)
def test_refusals_have_their_classes(refused: Refused, status: Status, cls: type[CallError]) -> None:
    """Each reason to refuse is a class callers can catch, and each says that nothing ran."""
    block, body = encode_error(status, "no", instance="I1", refused=refused, retry_after_s=0.25)
    error = _decoded(block, body)
    assert type(error) is cls
    assert (error.executed, error.status, error.retry_after_s) == (Executed.NO, status, 0.25)


@pytest.mark.parametrize(
    ("lines", "body", "status", "message", "executed"),
    [
        ("Nats-Service-Error: bad\r\nNats-Service-Error-Code: 400\r\n", b"", "INVALID_ARGUMENT", "bad", "yes"),
        ("Nats-Service-Error: x\r\nNats-Service-Error-Code: 409\r\n", b"{}", "ABORTED", "x", "yes"),
        ("Nats-Service-Error: x\r\nNats-Service-Error-Code: 500\r\n", b"", "INTERNAL", "x", "yes"),
        ("Nats-Service-Error: x\r\nNats-Service-Error-Code: 503\r\n", b"", "UNAVAILABLE", "x", "maybe"),
        ("Nats-Service-Error: x\r\nNats-Service-Error-Code: 418\r\n", b"", "UNKNOWN", "x", "yes"),
        ("Nats-Service-Error: x\r\nNats-Service-Error-Code: teapot\r\n", b"", "UNKNOWN", "x", "yes"),
        ("Nats-Service-Error: x\r\n", b"", "INTERNAL", "x", "yes"),
        ("Nats-Service-Error-Code: 404\r\n", b"", "NOT_FOUND", "", "yes"),
        ("Nats-Service-Error: zażółć ☺\r\n", b"", "INTERNAL", "zażółć ☺", "yes"),
        # A body of a foreign service is its own affair, however much it looks like ours.
        (
            "Nats-Service-Error: x\r\nNats-Service-Error-Code: 404\r\n",
            b'{"status":"OK","message":"y"}', "NOT_FOUND", "x", "yes",
        ),
        # With Mesh-Status the body is authoritative; where it cannot be read the headers must do.
        (
            "Mesh-Status: ABORTED\r\nNats-Service-Error: x\r\n",
            b'{"status":"ABORTED","message":"y"}', "ABORTED", "y", "yes",
        ),
        ("Mesh-Status: ABORTED\r\nNats-Service-Error: x\r\n", b"", "ABORTED", "x", "yes"),
        ("Mesh-Status: ABORTED\r\nNats-Service-Error: x\r\n", b'{"message":7}', "ABORTED", "x", "yes"),
        ("Mesh-Status: ABORTED\r\nNats-Service-Error: x\r\n", b"[" * 100_000, "ABORTED", "x", "yes"),
        ("Mesh-Status: NEW_ONE\r\nNats-Service-Error: x\r\n", b"", "UNKNOWN", "x", "yes"),
        ("Mesh-Status: UNAVAILABLE\r\nMesh-Refused: new-one\r\n", b"", "UNAVAILABLE", "", "yes"),
        ("Mesh-Status: UNAVAILABLE\r\nMesh-Retry-After-Ms: soon\r\n", b"", "UNAVAILABLE", "", "yes"),
    ],
)  # fmt: skip
def test_what_others_answer(lines: str, body: bytes, status: str, message: str, executed: str) -> None:
    """Foreign codes by the table; newer or broken fields of a mesh peer cost their own meaning and no more."""
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    assert is_error(block)
    error = _decoded(block, body)
    assert (error.status, error.message, error.executed) == (Status(status), message, Executed(executed))
    assert error.refused is None
    assert error.retry_after_s is None


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nMesh-Status: OK\r\n\r\n",
        b"NATS/1.0\r\nMesh-Instance: I1\r\n\r\n",
    ],
)
def test_what_is_no_error(block: bytes) -> None:
    """No headers, no status, or the status OK: the call succeeded."""
    assert not is_error(block)


field = st.sampled_from(
    [
        b"Mesh-Status", b"Mesh-Refused", b"Mesh-Retry-After-Ms", b"Nats-Service-Error", b"Nats-Service-Error-Code",
        b"Mesh-Instance", b"content-type",
    ]
)  # fmt: skip
blocks = st.binary(max_size=100) | st.lists(st.tuples(field, st.binary(max_size=20)), max_size=6).map(
    lambda pairs: b"NATS/1.0\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in pairs) + b"\r\n"
)
bodies = st.binary(max_size=100) | st.builds(
    lambda **fields: msgspec.json.encode(fields),
    status=st.text(max_size=10) | st.integers(),
    message=texts | st.none(),
    type=st.sampled_from(["OutOfStock", "SoldOut", "Stubborn", "Nothing", "ValueError", ""]),
    details=details | st.none() | st.integers() | st.just({"sku": "x"}),
)


@given(block=blocks, body=bodies)
@example(block=b"NATS/1.0\r\nMesh-Status: ABORTED\r\n\r\n", body=b'{"status":"ABORTED","type":"Stubborn"}')
@example(block=b"NATS/1.0\r\nMesh-Retry-After-Ms: -1\r\n\r\n", body=b"")
@example(block=b"NATS/1.0\r\nMesh-Status: \xff\r\nMesh-Refused: \xff\r\n\r\n", body=b"\xff")
def test_reading_an_error_is_total(block: bytes, body: bytes) -> None:
    """Whatever a peer sends, the caller gets a CallError with a real status, never another exception."""
    is_error(block)
    error = _decoded(block, body, (OutOfStock, SoldOut, Stubborn, Nothing, ValueError))
    assert isinstance(error, CallError)
    assert error.status is not Status.OK
    assert error.retry_after_s is None or error.retry_after_s >= 0
    assert isinstance(str(error), str)


def test_errors_survive_pickling() -> None:
    """Process pools and test runners move exceptions between processes."""
    errors: tuple[MeshError, ...] = (
        CallError("x", service="s", executed=Executed.NO),
        PolicyError("x", path="p", line=3),
        ConfigError("x"),
        CodecError("x", executed=Executed.YES),
        OutOfStock("x", sku="a"),
        Stubborn(7),
    )
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
