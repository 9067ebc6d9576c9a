"""Decoders that are made when the first message of their kind comes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from nats_mesh.core.lazy import at_first_use


class Said(msgspec.Struct):
    """A message."""

    text: str


def test_a_decoder_is_made_by_its_first_message() -> None:
    """Not before, and not again for the next one."""
    made: list[str] = []

    def make() -> Callable[[bytes], Said]:
        made.append("made")
        return msgspec.json.Decoder(Said).decode

    decode = at_first_use(make)
    assert made == []
    assert [decode(b'{"text":"a"}'), decode(b'{"text":"b"}')] == [Said("a"), Said("b")]
    assert made == ["made"]


def test_what_does_not_fit_is_said_by_the_decoder() -> None:
    """Its errors pass as they are, from the first message on, and it decodes the next one."""
    decode = at_first_use(lambda: msgspec.json.Decoder(Said).decode)
    for _ in range(2):
        with pytest.raises(msgspec.ValidationError, match="text"):
            decode(b"{}")
    assert decode(b'{"text":"a"}') == Said("a")


def test_a_decoder_that_cannot_be_made_is_tried_again() -> None:
    """An error of making it is no decoder: whoever comes next may get one."""
    failures = [RuntimeError("not now")]

    def make() -> Callable[[bytes], Said]:
        if failures:
            raise failures.pop()
        return msgspec.json.Decoder(Said).decode

    decode = at_first_use(make)
    with pytest.raises(RuntimeError, match="not now"):
        decode(b'{"text":"a"}')
    assert decode(b'{"text":"a"}') == Said("a")
