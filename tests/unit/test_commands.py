"""Operators' commands as bytes: what is read, what is refused with a reason, what is no command at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nats_mesh.discovery.commands import (
    COMMANDS,
    MAX_BYTES,
    Answer,
    Command,
    Drain,
    FaultCommand,
    LogLevel,
    Undrain,
    decode_answer,
    decode_command,
    encode,
)
from nats_mesh.errors import CodecError, ConfigError


@pytest.mark.parametrize(
    "command",
    [
        Drain(),
        Undrain(),
        FaultCommand(endpoint="place", delay_ms=200.0, abort="UNAVAILABLE", share=0.1, for_ms=1000.0),
        FaultCommand(clear=True),
        LogLevel(level="DEBUG"),
        Drain(operator="ada@laptop", reason="game day"),
    ],
)
def test_a_command_is_read_as_it_was_written(command: Command) -> None:
    """Each says its version and its name, and there is no other name."""
    written = json.loads(encode(command))
    assert written["version"] == 1
    assert written["command"] in COMMANDS
    assert decode_command(encode(command)) == command


def test_fields_that_nobody_knows_are_ignored() -> None:
    """A newer command line may say more."""
    assert decode_command(b'{"version":1,"command":"drain","mood":"fine"}') == Drain()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"drain",
        b"[]",
        b"null",
        b"{}",
        b'{"command":"drain"}',
        b'{"version":1}',
        b'{"version":"1","command":"drain"}',
        b'{"version":1,"command":7}',
        b"\xff",
        b" " * (MAX_BYTES + 1),
        b"[" * 60_000,
    ],
)
def test_what_is_no_command_is_none(data: bytes) -> None:
    """Dropped and counted by whoever reads it."""
    with pytest.raises(CodecError):
        decode_command(data)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"version": 2, "command": "drain"}, "version 2 of commands is not supported"),
        ({"version": 1, "command": "eject"}, "'eject' is not supported; there are: drain, undrain, fault"),
        ({"version": 1, "command": "fault", "share": 0}, r"\$\.share"),
        ({"version": 1, "command": "fault", "share": 1.5}, r"\$\.share"),
        ({"version": 1, "command": "fault", "delay_ms": -1}, r"\$\.delay_ms"),
        ({"version": 1, "command": "fault", "for_ms": 0}, r"\$\.for_ms"),
        ({"version": 1, "command": "fault", "for_ms": 1e12}, r"\$\.for_ms"),
        ({"version": 1, "command": "fault", "endpoint": "a b"}, r"\$\.endpoint"),
        ({"version": 1, "command": "log-level", "level": "LOUD"}, r"\$\.level"),
        ({"version": 1, "command": "log-level"}, "level"),
    ],
)
def test_what_cannot_be_carried_out_is_told_why(body: dict[str, Any], said: str) -> None:
    """An operator learns which field is wrong."""
    with pytest.raises(ConfigError, match=said):
        decode_command(json.dumps(body).encode())


def test_an_answer_is_read_as_it_was_written() -> None:
    """Who did what, or why not."""
    answer = Answer(
        instance="i1", service="orders", name="host-1", done=True, message="draining", in_flight=3
    )
    assert decode_answer(encode(answer)) == answer
    with pytest.raises(CodecError):
        decode_answer(
            b'{"version":1,"instance":"i 1","service":"orders","name":"x","done":true,"message":""}'
        )
    with pytest.raises(CodecError):
        decode_answer(b" " * (MAX_BYTES + 1))
