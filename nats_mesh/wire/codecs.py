"""Values to bytes and back: JSON, MessagePack, raw bytes. The content type says which.

Encoders are stateless and shared; decoders are built once per type and kept in a bounded cache.
pydantic models work where pydantic is installed, by way of its own JSON and Python modes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Final

import msgspec
import msgspec.inspect

from nats_mesh.errors import CodecError, ConfigError

__all__ = [
    "AS_IT_IS",
    "CODECS",
    "JSON",
    "MSGPACK",
    "RAW",
    "RAW_TYPES",
    "Codec",
    "by_content_type",
    "check_codec",
    "encoder_for",
]

_DECODERS = 1024
#: What travels as it is. A tuple: isinstance() takes three times as long with a union.
RAW_TYPES: Final = (bytes, bytearray, memoryview)
#: The same, and nothing at all: what no codec is asked about.
AS_IT_IS: Final = (*RAW_TYPES, type(None))
JSON_TYPE: Final = "application/json"
MSGPACK_TYPE: Final = "application/msgpack"
RAW_TYPE: Final = "application/octet-stream"


class Codec:
    """One content type: ``encode(value) -> bytes`` and ``decoder(type) -> (bytes -> value)``.

    Both raise :class:`CodecError` with the path of the offending field.
    """

    __slots__ = ("_make_decoder", "content_type", "name", "raw_encode")

    def __init__(
        self,
        name: str,
        content_type: str,
        encode: Callable[[Any], bytes],
        make_decoder: Callable[[Any], Callable[[bytes], Any]],
    ) -> None:
        self.name = name
        self.content_type = content_type
        #: As :meth:`encode`, without its errors: for who tries it first and asks :meth:`encode` what was wrong.
        self.raw_encode = encode
        self._make_decoder = make_decoder

    def encode(self, value: Any) -> bytes:
        """Bytes of ``value``; :class:`CodecError` says which type cannot be encoded."""
        try:
            return self.raw_encode(value)
        except CodecError:
            raise
        except RecursionError:
            raise CodecError(
                f"cannot encode {type(value).__name__} as {self.name}: it nests too deeply"
            ) from None
        except (
            Exception
        ) as error:  # an encoder meets arbitrary user types (their properties run): the cause is named
            failure = CodecError(f"cannot encode {type(value).__name__} as {self.name}: {error}")
            failure.__cause__ = error  # compiled, `from` says nothing
            raise failure from error

    def decoder(self, kind: Any) -> Callable[[bytes], Any]:
        """A function from bytes to ``kind`` (cached); it raises :class:`CodecError` on what does not fit."""
        try:
            return _cached_decoder(self, kind)
        except TypeError:  # an unhashable annotation, such as Annotated with a dict inside
            return self._build(kind)

    def raw_decoder(self, kind: Any) -> Callable[[bytes], Any]:
        """As :meth:`decoder`, without its errors: for who tries it first and asks :meth:`decoder` what was wrong."""
        self.decoder(kind)
        return self._make_decoder(kind)

    def _build(self, kind: Any) -> Callable[[bytes], Any]:
        try:
            decode = self._make_decoder(kind)
            _check_kind(kind)
        except TypeError as error:
            raise ConfigError(f"cannot decode {self.name} to {kind!r}: {error}") from error

        def run(data: bytes) -> Any:
            try:
                return decode(data)
            except msgspec.DecodeError as error:  # ValidationError is a DecodeError; the others follow
                raise CodecError(_decode_message(self.name, data, error)) from None
            except RecursionError:
                raise CodecError(f"not valid {self.name}: it nests too deeply") from None
            except (ValueError, TypeError, OverflowError) as error:
                raise CodecError(f"not valid {self.name}: {str(error)[:500]}") from None

        return run

    def __repr__(self) -> str:
        return f"<Codec {self.name}>"


@functools.lru_cache(maxsize=_DECODERS)
def _cached_decoder(codec: Codec, kind: Any) -> Callable[[bytes], Any]:
    return codec._build(kind)


def _decode_message(name: str, data: bytes, error: Exception) -> str:
    if not data:
        return "the body is empty"
    kind = "it does not fit" if isinstance(error, msgspec.ValidationError) else f"not valid {name}"
    return f"{kind}: {error}"


def _pydantic_model(kind: Any) -> Any:
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(kind, type) or not issubclass(kind, pydantic.BaseModel):
        return None
    return kind


def _check_kind(kind: Any) -> None:
    """Raise :class:`TypeError` where ``kind`` holds a class that no codec knows: every message would fail on it."""
    waiting: list[Any] = [msgspec.inspect.type_info(kind)]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting.extend(node)
        elif isinstance(node, msgspec.inspect.CustomType):
            if node.cls is not msgspec.UnsetType and _pydantic_model(node.cls) is None:
                raise TypeError(
                    f"{node.cls.__qualname__} is no type that travels; use a msgspec.Struct, a dataclass, "
                    "a pydantic model, plain types or Any"
                )
        elif isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field) and id(node) not in seen:
            seen.add(id(node))
            waiting.extend(getattr(node, name) for name in node.__struct_fields__)


def _enc_hook(value: Any) -> Any:
    if _pydantic_model(type(value)) is not None:
        return value.model_dump(mode="json")
    raise NotImplementedError(f"objects of type {type(value).__name__} are not supported")


def _dec_hook(kind: type, value: Any) -> Any:
    model = _pydantic_model(kind)
    if model is not None:
        return model.model_validate(value)
    raise NotImplementedError(f"objects of type {kind.__name__} are not supported")


def _bytes_decoder(kind: Any) -> Callable[[bytes], Any]:
    if kind is Any or kind is bytes:
        return bytes
    raise ConfigError(
        f"raw bytes cannot become {kind!r}: use returns=bytes, or a codec of 'json' or 'msgpack'"
    )


def _encode_raw(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise CodecError(f"the codec 'bytes' takes bytes, got {type(value).__name__}")


JSON: Final = Codec(
    "json",
    JSON_TYPE,
    msgspec.json.Encoder(enc_hook=_enc_hook).encode,
    lambda kind: msgspec.json.Decoder(kind, dec_hook=_dec_hook).decode,
)
MSGPACK: Final = Codec(
    "msgpack",
    MSGPACK_TYPE,
    msgspec.msgpack.Encoder(enc_hook=_enc_hook).encode,
    lambda kind: msgspec.msgpack.Decoder(kind, dec_hook=_dec_hook).decode,
)
RAW: Final = Codec("bytes", RAW_TYPE, _encode_raw, _bytes_decoder)

#: By the name that ``codec=`` takes.
CODECS: Final = {codec.name: codec for codec in (JSON, MSGPACK, RAW)}
_BY_TYPE: Final = {codec.content_type.encode(): codec for codec in (JSON, MSGPACK, RAW)}


def check_codec(name: str) -> Codec:
    """The codec called ``name``, or :class:`ConfigError` with the names there are."""
    codec = CODECS.get(name)
    if codec is None:
        raise ConfigError(f"codec {name!r} is unknown; use one of: {', '.join(sorted(CODECS))}")
    return codec


def by_content_type(value: bytes | None) -> Codec | None:
    """The codec of a content type (parameters and case ignored); JSON where none is given, ``None`` if unknown."""
    if value is None:
        return JSON
    known = _BY_TYPE.get(value)
    if known is None:
        known = _BY_TYPE.get(value.partition(b";")[0].strip().lower())
    return known


def encoder_for(value: Any, codec: Codec) -> Codec:
    """The codec that a value really takes: bytes travel raw whatever the codec is."""
    return RAW if isinstance(value, RAW_TYPES) else codec
