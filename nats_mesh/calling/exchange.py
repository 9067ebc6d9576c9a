"""What is known of a destination, which its calls share: where they go, what is done to them on their way, and how
their values become bytes and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from nats_mesh.calling.replies import raw_reply_decoder, reply_decoder
from nats_mesh.calling.watching import Watching
from nats_mesh.core.deadline import DEFAULT_TIMEOUT_S
from nats_mesh.core.hedge import Hedger
from nats_mesh.core.router import Fault
from nats_mesh.endpoint import Contract
from nats_mesh.errors import CodecError
from nats_mesh.layers.balance import Balance
from nats_mesh.layers.breaker import Circuit
from nats_mesh.layers.retry import Retries
from nats_mesh.model import Headers, Request
from nats_mesh.policy import OutboundRules
from nats_mesh.policy.scopes import Place, Via
from nats_mesh.telemetry.series import Series
from nats_mesh.wire.codecs import AS_IT_IS, CODECS, JSON, RAW, Codec, check_codec

__all__ = ["Chooses", "Declared", "Effects", "Target", "encode_value"]


class Declared(NamedTuple):
    """What an endpoint declares of itself."""

    timeout_s: float | None = None
    idempotent: bool | None = None
    #: Whether all its instances know each other's idempotency keys.
    keyed: bool = False


class Chooses(Protocol):
    """Says which target a call goes to, see :mod:`nats_mesh.calling.routing`."""

    def choose(self, headers: Headers) -> Target: ...

    def targets(self) -> Iterator[Target]: ...

    def close(self) -> None: ...


class Effects(NamedTuple):
    """What is done to the calls of a target on their way: a ``fault``, and copies to others, each with its share.
    ``by`` is the rule that says the fault."""

    fault: Fault | None
    mirrors: tuple[tuple[Target, float], ...]
    by: Place | None = None


class Target:
    """Everything about a destination that its calls share."""

    __slots__ = (
        "_decodes", "_encodes", "_raw", "_value_codec", "_value_type", "balance", "cancel", "circuit", "codec",
        "contract", "declared", "effects", "endpoint", "hedger", "hedges", "inbox", "keyed", "label", "learn_at",
        "line", "mesh", "retries", "routing", "rules", "sampling", "series", "service",
        "subject", "subset", "timeout_s", "usual", "via", "watching", "where",
    )  # fmt: skip

    def __init__(
        self,
        service: str,
        endpoint: str,
        subject: str,
        cancel: str,
        series: Series,
        contract: Contract | None,
        inbox: str,
        *,
        subset: str = "",
    ) -> None:
        self.service = service
        self.endpoint = endpoint
        self.subject = subject
        #: Where to say that nobody waits any more; empty for what is not a mesh service.
        self.cancel = cancel
        self.mesh = bool(cancel)
        #: What people call it.
        self.label = f"{service}.{endpoint}" if service else subject
        #: The selection of the service's instances that calls go to; empty: all of them.
        self.subset = subset
        #: Where errors about a call's own arguments say that they are.
        self.where = f"call to {self.label}"
        self.series = series
        self.contract = contract
        #: What its reply subjects begin with, and the commands that publish requests.
        self.inbox = inbox
        self.line = f"HPUB {subject} {inbox}"
        self.codec = contract.codec if contract is not None else JSON.name
        self.timeout_s = (
            DEFAULT_TIMEOUT_S if contract is None or contract.timeout_s is None else contract.timeout_s
        )
        #: When to ask the service again what it declares (monotonic seconds); never for a known contract.
        self.learn_at = 0.0 if self.mesh and contract is None else math.inf
        #: What the service itself says of the endpoint, once it was asked.
        self.declared = Declared()
        #: What policies say of it, and what that makes of its calls; ``None``: the layer is not in its chain.
        self.rules: OutboundRules | None = None
        self.circuit: Circuit | None = None
        self.retries: Retries | None = None
        self.balance: Balance | None = None
        self.hedger: Hedger | None = None
        self.hedges = 0
        #: Where each call goes, if that is asked of the call; and which rules of routes the calls of this target have
        #: met (``None``: whatever there is), with what these do to them.
        self.routing: Chooses | None = None
        self.via: Via | None = None
        self.effects: Effects | None = None
        self.keyed = False
        #: Who is told of its calls, and the share of the traces which begin with one that are sampled.
        self.watching = Watching()
        self.sampling = 0.0
        #: A request with nothing in it but what all of them share; the client makes it, and copies of it.
        self.usual: Request
        #: The decoder of the last usual reply, and for which type and codec it is.
        self._decodes: tuple[Any, Codec | None] = (msgspec.UNSET, None)
        self._raw: Callable[[bytes], Any] = bytes
        #: The encoder of the last value that did not travel as it is, and for which type and codec it is.
        self._encodes: Callable[[Any], bytes] | None = None
        self._value_type: Any = None
        self._value_codec: Codec = JSON

    def encoded(self, value: Any, name: str) -> tuple[bytes, Codec]:
        """As :func:`encode_value`, which is gone through again only where type or codec are not those of before."""
        codec = self._value_codec
        if self._encodes is not None and type(value) is self._value_type and name == codec.name:
            try:
                return self._encodes(value), codec
            except Exception:  # noqa: BLE001
                pass  # whatever is wrong, the careful way says it
        body, codec = encode_value(self.label, value, name)
        if codec.name == name and not isinstance(value, AS_IT_IS):
            self._encodes, self._value_type, self._value_codec = codec.raw_encode, type(value), codec
        return body, codec

    def usual_value(self, codec: Codec, body: bytes, returns: Any) -> Any:
        """The value of a :class:`UsualReply`; :class:`CodecError` where it does not fit."""
        known, known_codec = self._decodes
        if returns is not known or codec is not known_codec:
            self._raw = raw_reply_decoder(codec, returns)
            self._decodes = (returns, codec)
        try:
            return self._raw(body)
        # Whatever is wrong, the careful decoder says it (or finds that an empty body is a value here).
        except Exception:  # noqa: BLE001
            return reply_decoder(codec, codec is not JSON, returns)(body)


def encode_value(label: str, value: Any, name: str) -> tuple[bytes, Codec]:
    """The body and the codec it is in; bytes travel raw, ``None`` as an empty body. :class:`CodecError` else."""
    codec = CODECS.get(name) or check_codec(name)
    if isinstance(value, AS_IT_IS):
        return (b"", codec) if value is None else (bytes(value), RAW)
    try:
        return codec.raw_encode(value), codec
    except Exception:  # noqa: BLE001
        pass  # whatever is wrong, the careful way says it
    try:
        return codec.encode(value), codec
    except CodecError as error:
        raise CodecError(f"{label}: {error}") from error.__cause__
