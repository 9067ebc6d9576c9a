"""What a service declares as its configuration, and how a stored value becomes one: pure.

A value is a JSON object, and the declared struct says what may stand in it. A name that is none of its fields is
refused, with the nearest one that is: a misspelt setting would otherwise be a default in silence.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import msgspec

from nats_mesh.config.names import unknown_name
from nats_mesh.errors import UNREADABLE, ConfigError
from nats_mesh.policy.problems import hint

__all__ = ["MAX_VALUE", "Declared", "describe_config"]

#: The largest value of a service's configuration, in bytes.
MAX_VALUE: Final = 48 << 10
_MAX_SCHEMA: Final = 16 << 10


class Declared:
    """The struct that a service declares, and what is known of it."""

    def __init__(self, service: str, kind: type[msgspec.Struct]) -> None:
        self.kind = kind
        self._service = service
        self._decode = msgspec.json.Decoder(kind).decode
        #: Why there is no value where none is stored, as far as :meth:`default` has found out.
        self.undefined = ""
        self._fields = {field.encode_name for field in msgspec.structs.fields(kind)}
        config = kind.__struct_config__
        if config.tag is not None and config.tag_field is not None:
            self._fields.add(config.tag_field)

    def default(self) -> Any:
        """The value where none is stored; ``None`` where there is no such: then ``undefined`` says why."""
        if any(field.required for field in msgspec.structs.fields(self.kind)):
            self.undefined = f"{self.kind.__name__} has fields without a default"
            return None
        try:
            return self.kind()
        except Exception as error:  # noqa: BLE001 - a struct may check itself, and refuse its own defaults
            self.undefined = f"the defaults of {self.kind.__name__} do not hold ({_said(error)})"
            return None

    def decode(self, value: bytes) -> Any:
        """``value`` as the struct; :class:`ConfigError` with the path and the reason where it does not fit."""
        if len(value) > MAX_VALUE:
            raise ConfigError(f"has {len(value)} bytes, at most {MAX_VALUE} are taken")
        try:
            plain = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        except UNREADABLE as error:
            raise ConfigError(f"must be a JSON object: {error}") from None
        for name in plain:
            if name not in self._fields:
                raise ConfigError(f"{name[:80]}: is no field here; {hint(name, self._fields)}")
        try:
            found = self._decode(value)
        except msgspec.ValidationError as error:
            reason, _, path = str(error).partition(" - at `$")
            raise ConfigError(f"{path.rstrip('`').lstrip('.') or 'the value'}: {reason}") from None
        # A struct may check itself, and raise what it likes.
        except Exception as error:
            raise ConfigError(_said(error)) from error
        self._check_names(value)
        return found

    def _check_names(self, value: bytes) -> None:
        """:class:`ConfigError` where a name further down is none that its type knows."""
        try:
            unknown = unknown_name(msgspec.json.decode(value), self.kind)
        except RecursionError:
            raise ConfigError("is nested too deep") from None
        if unknown is not None:
            path, fields = unknown
            name = path.rpartition(".")[2]
            raise ConfigError(f"{path.lstrip('.')[:200]}: is no field here; {hint(name, sorted(fields))}")

    def schema(self) -> str:
        """The JSON Schema of the struct; empty where there is none, or it is too large to be told."""
        try:
            schema = msgspec.json.encode(msgspec.json.schema(self.kind))
        except TypeError:
            return ""
        return schema.decode() if len(schema) <= _MAX_SCHEMA else ""


def describe_config(service: str, kind: object) -> Declared | None:
    """What ``config=`` of a service says; :class:`ConfigError` where it cannot be a configuration."""
    if kind is None:
        return None
    if not (inspect.isclass(kind) and issubclass(kind, msgspec.Struct)):
        raise ConfigError(f"{service}: config= takes a subclass of msgspec.Struct, got {kind!r:.80}")
    if kind.__struct_config__.array_like:
        raise ConfigError(
            f"{service}: {kind.__name__} is array_like, and a configuration is an object: leave that out of the struct"
        )
    try:
        return Declared(service, kind)
    except TypeError as error:
        raise ConfigError(f"{service}: {kind.__name__} cannot be read from JSON: {error}") from None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
