"""What operators tell instances (``control.command.…``), and what these answer: bytes to structs and back.

A command is a JSON object with a ``version`` and a ``command``. What is no such object is dropped; what is one
and cannot be carried out is answered with the reason.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

import msgspec

from nats_mesh.core.lazy import at_first_use
from nats_mesh.core.presence import Count, Name, State
from nats_mesh.errors import CodecError, ConfigError
from nats_mesh.wire.codecs import JSON

__all__ = [
    "COMMANDS",
    "LEVELS",
    "MAX_BYTES",
    "MAX_OPERATOR",
    "MAX_REASON",
    "VERSION",
    "Answer",
    "CheckConfig",
    "Command",
    "Drain",
    "FaultCommand",
    "LogLevel",
    "Undrain",
    "decode_answer",
    "decode_command",
    "encode",
]

VERSION: Final = 1
#: The largest body of a command or an answer that is read.
MAX_BYTES: Final = 64 * 1024
#: The longest texts that a command may have (characters).
MAX_OPERATOR: Final = 128
MAX_REASON: Final = 256

Level: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
#: The log levels there are, by name.
LEVELS: Final[dict[str, Level]] = {each: each for each in get_args(Level)}


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="command"):
    """What every command has. ``operator`` is who gives it, in his own words (``ada@laptop``): it proves nothing, the
    subject does; ``reason`` is why."""

    version: Literal[1] = VERSION
    operator: Annotated[str, msgspec.Meta(max_length=MAX_OPERATOR)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] = ""


class Drain(Command, frozen=True, kw_only=True, tag="drain"):
    """Take no more calls, and finish what is held; go on living."""


class Undrain(Command, frozen=True, kw_only=True, tag="undrain"):
    """Take calls again."""


class FaultCommand(Command, frozen=True, kw_only=True, tag="fault"):
    """Delay or abort a ``share`` of the calls of ``endpoint`` (empty: of all) for ``for_ms``; or ``clear`` that."""

    endpoint: Annotated[str, msgspec.Meta(pattern=r"\A([A-Za-z0-9_-]{1,63})?\Z")] = ""
    delay_ms: Annotated[float, msgspec.Meta(ge=0.0, le=3_600_000.0)] = 0.0
    abort: Annotated[str, msgspec.Meta(max_length=40)] = ""
    share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1.0
    for_ms: Annotated[float, msgspec.Meta(gt=0.0, le=86_400_000.0)] = 60_000.0
    clear: bool = False


class LogLevel(Command, frozen=True, kw_only=True, tag="log-level"):
    """Have the ``logger`` (`root`: all of them) log this much, in the whole process, for ``for_ms`` (``None``: for
    good); ``RESET``: as before anybody changed it."""

    level: Level | Literal["RESET"]
    logger: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,200}\Z")] = "nats_mesh"
    for_ms: Annotated[float, msgspec.Meta(gt=0.0, le=86_400_000.0)] | None = None


class CheckConfig(Command, frozen=True, kw_only=True, tag="check-config"):
    """Would this be a configuration of yours? Nothing is changed."""

    value: msgspec.Raw


COMMANDS: Final = ("drain", "undrain", "fault", "log-level", "check-config")


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    command: Annotated[str, msgspec.Meta(max_length=64)]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command at one instance: whether it was ``done``, and what, or why not, in ``message``."""

    version: Literal[1] = VERSION
    instance: Name
    service: Name
    name: Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,160}\Z")]
    done: bool
    message: Annotated[str, msgspec.Meta(max_length=1024)]
    state: State = State.READY
    in_flight: Count = 0


_decode_head = at_first_use(lambda: JSON.decoder(_Head))
_decode_command = at_first_use(lambda: JSON.decoder(Drain | Undrain | FaultCommand | LogLevel | CheckConfig))
_decode_answer = at_first_use(lambda: JSON.decoder(Answer))


def encode(message: Command | Answer) -> bytes:
    """The bytes of a command or an answer."""
    return JSON.encode(message)


def decode_command(data: bytes) -> Command:
    """Read a command.

    :class:`CodecError` where it is none at all; :class:`ConfigError`, worded for the operator, where it is one
    that this version does not know or cannot take.
    """
    if len(data) > MAX_BYTES:
        raise CodecError(f"command: {len(data)} bytes, at most {MAX_BYTES} are read")
    head: _Head = _decode_head(data)
    if head.version != VERSION:
        raise ConfigError(f"version {head.version} of commands is not supported, only {VERSION}")
    if head.command not in COMMANDS:
        raise ConfigError(f"the command {head.command!a} is not supported; there are: {', '.join(COMMANDS)}")
    try:
        command: Command = _decode_command(data)
    except CodecError as error:
        raise ConfigError(f"{head.command}: {error}") from None
    return command


def decode_answer(data: bytes) -> Answer:
    """Read an answer, or raise :class:`CodecError`."""
    if len(data) > MAX_BYTES:
        raise CodecError(f"answer: {len(data)} bytes, at most {MAX_BYTES} are read")
    answer: Answer = _decode_answer(data)
    return answer
