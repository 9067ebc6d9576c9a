"""What a person types as a value, headers and a target, made into what a call takes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from nats_mesh.errors import ConfigError
from nats_mesh.model import OwnHeaders
from nats_mesh.wire.codecs import CODECS
from nats_mesh_cli.errors import CliError, did_you_mean

__all__ = ["PLAIN", "check_codec_name", "parse_headers", "parse_target", "read_value"]

PLAIN = "nats://"
_MAX_BYTES = 64 * 1024 * 1024
_TYPED = ("json", "msgpack")
#: No name of a header has one of these in it.
_KEY_END = re.compile("([=:])")


def read_value(text: str | None, *, raw: bool, stdin: IO[bytes] | None = None) -> Any:
    """The value of ``JSON``, ``-`` (stdin) or ``@FILE``; bytes as they are where ``raw``. ``None`` for no value."""
    if text is None:
        return None
    data, where = _read(text, stdin)
    if raw:
        return data
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = "text needs quotes of its own: '\"text\"'" if where == "value" else ""
        if not data.strip():
            hint = "it is empty; leave the value out to send none"
        raise CliError(f"the {where} is not JSON: {error}", hint=hint) from None


def _read(text: str, stdin: IO[bytes] | None) -> tuple[bytes, str]:
    if text == "-":
        data, where = (stdin or sys.stdin.buffer).read(_MAX_BYTES + 1), "value on stdin"
    elif text.startswith("@"):
        path = Path(text[1:])
        try:
            with path.open("rb") as file:
                data, where = file.read(_MAX_BYTES + 1), f"file {text[1:]}"
        except OSError as error:
            raise CliError(f"value {text}: {error.strerror or error}") from None
    else:
        return text.encode("utf-8", "surrogateescape"), "value"
    if len(data) > _MAX_BYTES:
        raise CliError(f"the {where} is longer than {_MAX_BYTES} bytes, more than any server takes")
    return data, where


def parse_headers(given: Sequence[str]) -> OwnHeaders:
    """Headers of ``KEY=VALUE`` or ``KEY: VALUE``; a repeated key keeps every value. The mesh's own are refused."""
    headers = OwnHeaders()
    for item in given:
        name, sign, value = _KEY_END.split(item, maxsplit=1) if _KEY_END.search(item) else (item, "", "")
        if not sign:
            raise CliError(f"header {item!r} has no '='", hint="write -H key=value")
        try:
            headers.add(name.strip(), value.lstrip() if sign == ":" else value)
        except ConfigError as error:
            raise CliError(str(error)) from None
    return headers


def parse_target(target: str) -> tuple[str, str]:
    """Service and endpoint of a target; both empty for ``nats://subject``."""
    if target.startswith(PLAIN):
        return "", ""
    service, dot, endpoint = target.partition(".")
    if not dot or not service or not endpoint:
        raise CliError(
            f"target {target!r} names no endpoint", hint="write SERVICE.ENDPOINT, or nats://subject"
        )
    return service, endpoint


def check_codec_name(name: str) -> str:
    """The codec called ``name``, if values can be typed for it."""
    if name not in _TYPED:
        hint = did_you_mean(name, _TYPED) or f"use one of: {', '.join(_TYPED)}"
        if name in CODECS:
            hint = "--raw sends bytes as they are"
        raise CliError(f"--codec {name!r} is no codec for values", hint=hint)
    return name
