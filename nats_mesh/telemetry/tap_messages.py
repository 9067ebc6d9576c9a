"""Taps on the bus: what an observer asks for, and the calls that instances tell of. Pure: bytes to structs and back.

Everything that was added after the first members knew taps may be left out on either side: who does not know a filter
sends more than was asked for, says nothing of having filtered, and the observer filters.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from nats_mesh.core.envelope import MAX_NAMES, Envelope, HeaderNames, RecordedCall, Share
from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import MAX_ENDPOINTS, Count, Name, Version
from nats_mesh.core.tap_filter import Filter
from nats_mesh.errors import CodecError
from nats_mesh.wire.codecs import JSON
from nats_mesh.wire.vouching import check_claims

__all__ = [
    "MAX_BODY",
    "MAX_BYTES",
    "MAX_CALLS",
    "MAX_OBSERVER",
    "MAX_PLACES",
    "MAX_RATE",
    "MAX_WHY",
    "Body",
    "TapCall",
    "TapMessage",
    "Wish",
    "decode_tap",
    "decode_wish",
    "encode_tap",
    "recorded_call",
    "together",
]

#: The largest body that is sent or read.
MAX_BYTES: Final = 512 * 1024
#: How many calls one message tells of.
MAX_CALLS: Final = 256
#: How many calls a second an instance tells of at most, whoever asks for how many.
MAX_RATE: Final = 2000.0
#: How many observers an instance tells apart; the wishes of whoever comes beyond are put together as they come. To turn
#: them away would let anybody who can ask shut out everybody else, and one alone may ask for as much.
MAX_PLACES: Final = 32
#: How much of what is sent and answered is told at most, each (characters).
MAX_BODY: Final = 8192
#: The longest reason for looking at that (characters).
MAX_WHY: Final = 400
#: How much of an observer's name is told (characters).
MAX_OBSERVER: Final = 63
_MAX_WISH: Final = 16 * 1024
_TEXT: Final = r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"

#: An observer's name, as its lease's subject has it; longer ones are cut.
_Observer = Annotated[str, msgspec.Meta(pattern=_TEXT, max_length=MAX_OBSERVER)]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What an observer wants to hear, the body of its lease; an empty body is the default.

    ``sample``: so many of the traces. ``headers``: these of the application's, ``None`` is all of them.
    ``rate``: each instance tells of at most so many calls a second. ``only``: of which calls. ``body``: so many
    characters of what was sent and answered, each, where a policy allows it; for this ``why`` must say why, which is
    written down.
    """

    sample: Share = 1.0
    headers: HeaderNames = ()
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=MAX_RATE)] = 100.0
    only: Filter = Filter()
    body: Annotated[int, msgspec.Meta(ge=0, le=MAX_BODY)] = 0
    why: Annotated[str, msgspec.Meta(pattern=_TEXT, max_length=MAX_WHY)] = ""
    wire: Literal[1] = 1


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was sent or answered, as far as it may be shown: on one line, with what must not be seen hidden.

    ``form``: how to read ``text``: ``json`` (of MessagePack, too), plain ``text``, or ``base64`` of the bytes. ``cut``:
    there is more. ``hidden`` values were replaced. ``withheld`` says why nothing is shown at all, where nothing is.
    """

    text: Annotated[str, msgspec.Meta(pattern=_TEXT, max_length=MAX_BODY)] = ""
    form: Literal["json", "text", "base64"] = "json"
    cut: bool = False
    hidden: Count = 0
    withheld: Annotated[str, msgspec.Meta(pattern=r"\A[a-z-]{0,40}\Z")] = ""


class TapCall(Envelope, frozen=True, kw_only=True, omit_defaults=True):
    """A call as an instance tells of it; ``sent`` and ``answered`` where they were asked for and a policy allows it.
    ``silent``: they were asked for, and none does. No recording has them."""

    sent: Body | None = None
    answered: Body | None = None
    silent: bool = False


class TapMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that ended at one instance lately.

    ``seq`` counts the messages, so that who misses one knows. ``seen`` calls ended since the message before, of which
    ``dropped`` belonged to the sample and found no room; ``seen_by`` is the former by endpoint, absent where that is
    not known. ``sample`` and ``headers`` are what all observers together have asked for: who asked for less
    takes less. ``concurrency`` has how many calls of each endpoint the instance
    declares to take at a time. ``filtered``: the instance knows filters, and has told of no others than those that
    somebody asked for. ``withheld`` calls somebody asked for, and a policy says that nobody may see them. ``crowded``:
    more observers ask than the instance tells apart; how many places each name has, where one has none for itself.
    """

    instance: Name
    service: Name
    version: Version
    namespace: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    seen: Count = 0
    dropped: Count = 0
    seen_by: Annotated[dict[Name, Count], msgspec.Meta(max_length=MAX_ENDPOINTS)] | UnsetType = UNSET
    sample: Share = 1.0
    headers: HeaderNames = ()
    concurrency: Annotated[
        dict[Name, Annotated[int, msgspec.Meta(ge=1, le=2**31)]], msgspec.Meta(max_length=MAX_ENDPOINTS)
    ] = {}
    calls: Annotated[tuple[TapCall, ...], msgspec.Meta(max_length=MAX_CALLS)] = ()
    filtered: bool = False
    withheld: Count = 0
    crowded: Annotated[dict[_Observer, Count], msgspec.Meta(max_length=MAX_PLACES)] = {}
    wire: Literal[1] = 1


def together(wishes: list[Wish]) -> Wish:
    """One wish that holds every one of ``wishes``, of which there is one at least; but no bodies, which are told to
    those alone whose own wish was written down."""
    names: set[str] = set()
    for wish in wishes:
        names |= set(wish.headers or ())
    every = any(wish.headers is None for wish in wishes)
    # More names than one observer may ask for: then all of them; each observer takes its own.
    headers = None if every or len(names) > MAX_NAMES else tuple(sorted(names))
    only = {wish.only for wish in wishes}
    return Wish(
        sample=max(wish.sample for wish in wishes),
        headers=headers,
        rate=max(wish.rate for wish in wishes),
        only=only.pop() if len(only) == 1 else Filter(),
    )


def encode_tap(message: TapMessage, max_bytes: int) -> list[bytes]:
    """The bodies that carry a message: one, or several of one ``seq`` where it is larger than ``max_bytes``. What was
    seen and dropped stands in the first."""
    body = JSON.encode(message)
    if len(body) <= max_bytes or len(message.calls) <= 1:
        return [body]
    half = len(message.calls) // 2
    none: dict[str, int] | UnsetType = UNSET if message.seen_by is UNSET else {}
    first = msgspec.structs.replace(message, calls=message.calls[:half])
    second = msgspec.structs.replace(
        message, calls=message.calls[half:], seen=0, dropped=0, withheld=0, seen_by=none
    )
    return encode_tap(first, max_bytes) + encode_tap(second, max_bytes)


_decode_wish = at_first_use(lambda: JSON.decoder(Wish))
_decode_tap = at_first_use(lambda: JSON.decoder(TapMessage))


def decode_wish(data: bytes) -> Wish:
    """What an observer wants, or :class:`CodecError`."""
    if not data:
        return Wish()
    if len(data) > _MAX_WISH:
        raise CodecError(f"tap: a wish of {len(data)} bytes, at most {_MAX_WISH} are read")
    wish: Wish = _decode_wish(data)
    return wish


def decode_tap(
    data: bytes, *, service: str | None = None, instance: str | None = None, namespace: str | None = None
) -> TapMessage:
    """Read a body, or raise :class:`CodecError`. The keyword arguments are what the message's subject says."""
    if len(data) > MAX_BYTES:
        raise CodecError(f"tap: {len(data)} bytes, at most {MAX_BYTES} are read")
    message: TapMessage = _decode_tap(data)
    check_claims("tap", message, service=service, instance=instance, namespace=namespace)
    return message


def recorded_call(call: TapCall, message: TapMessage) -> RecordedCall:
    """A call of a message as it is recorded, with whose it is; what was said in it is left out."""
    return RecordedCall(
        service=message.service,
        instance=message.instance,
        version=message.version,
        concurrency=message.concurrency.get(call.endpoint),
        **{name: getattr(call, name) for name in Envelope.__struct_fields__},
    )
