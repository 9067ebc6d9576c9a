"""Bodies as an observer may see them: decoded, with what must not be seen hidden, on one line, cut to a size.

What cannot be decoded cannot be searched for what must be hidden: where a policy names fields it is not shown at all,
and elsewhere it is hidden whole where anything in it looks like a secret's name.
Nor is what is so large that to look at it would hold up the calls that come after.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from nats_mesh.core.envelope import HIDDEN, hidden_text, is_secret, names_secret
from nats_mesh.core.redact import Redactor, parse_path
from nats_mesh.telemetry.tap_messages import MAX_BODY, Body
from nats_mesh.wire.codecs import Codec

__all__ = ["MAX_LOOK", "Bodies"]

#: What is larger (bytes) is not looked at, and so not shown.
MAX_LOOK: Final = 64 * 1024
_LARGE, _UNREADABLE = "too-large", "unreadable"
#: What JSON may hold in a text as it is, and a line must not.
_UNSAFE: Final = re.compile("[\x7f-\x9f\u2028\u2029]")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_from_json: Final[Callable[[bytes], Any]] = msgspec.json.Decoder().decode
_from_msgpack: Final[Callable[[bytes], Any]] = msgspec.msgpack.Decoder().decode
_to_json: Final = msgspec.json.Encoder(enc_hook=str).encode


class Bodies:
    """Shows bodies under the fields that a policy has hidden, which are the same for many calls."""

    def __init__(self, fields: tuple[str, ...] = ()) -> None:
        self._redactor = Redactor([parse_path(field) for field in fields])
        self._hides = bool(fields)

    def show(self, data: bytes, codec: Codec | None, limit: int) -> Body:
        """``data`` in at most ``limit`` characters; ``codec`` is what it should be written in.
        Never raises for what is in it."""
        limit, redactor = min(limit, MAX_BODY), self._redactor
        if not data:
            return Body(form="text")
        if len(data) > MAX_LOOK:
            return Body(withheld=_LARGE)
        try:
            if codec is not None and codec.name == "msgpack":
                # It may hold bytes, which are written in base64.
                text = _to_json(redactor.shown(_from_msgpack(data))).decode()
            else:
                value = _from_json(data)
                text = _to_json(redactor.shown(value, _to_json(value).decode())).decode()
        # Whoever sends bytes decides what is in them: no codec may end a call for it, however deep it is nested.
        except Exception:  # noqa: BLE001
            return Body(withheld=_UNREADABLE) if self._hides else _raw(data, limit)
        text = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
        return Body(text=text[:limit], cut=len(text) > limit, hidden=redactor.hidden)


def _raw(data: bytes, limit: int) -> Body:
    try:
        text = _CONTROL.sub(" ", data.decode("utf-8"))
    except UnicodeDecodeError:
        held = limit // 4 * 3
        if is_secret(data.decode("latin-1")):
            return Body(text=HIDDEN[:limit], form="text", cut=limit < len(HIDDEN), hidden=1)
        text = base64.b64encode(data[:held]).decode()
        return Body(text=text, form="base64", cut=len(data) > held)
    shown = HIDDEN if names_secret(text) else hidden_text(text)
    return Body(text=shown[:limit], form="text", cut=len(shown) > limit, hidden=int(shown == HIDDEN != text))
