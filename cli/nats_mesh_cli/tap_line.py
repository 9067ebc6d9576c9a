"""Which calls to tap, written on one line: ``orders.place errors slow>100ms from=web status=UNAVAILABLE``. Pure."""

from __future__ import annotations

import shlex
from typing import Final

import msgspec

from nats_mesh.core.tap_filter import Filter
from nats_mesh.errors import MeshError
from nats_mesh_cli.errors import CliError, one_line
from nats_mesh_cli.options import duration_with_unit
from nats_mesh_cli.tap_given import filter_of, targets_of

__all__ = ["EXAMPLE", "Wanted", "wanted_of"]

EXAMPLE: Final = "orders.place errors slow>100ms from=web status=UNAVAILABLE route=v2 header:k=v"
_ERRORS: Final = "errors"
_SLOW: Final = ("slow>=", "slow>", "slow=")
_HEADER: Final = "header:"


class Wanted(msgspec.Struct, frozen=True):
    """Calls of ``targets`` (services, each with its endpoints; none: all) that ``only`` admits."""

    targets: dict[str, tuple[str, ...]] = {}
    only: Filter = Filter()


def wanted_of(text: str) -> Wanted:
    """What a line says, the same that the options of ``nats-mesh tap`` do; empty: every call. :class:`CliError` says
    what cannot be."""
    try:
        return _read(text)
    except (CliError, MeshError) as error:
        hint = error.hint if isinstance(error, CliError) else ""
        said = f"{error}; {hint}" if hint else str(error)
        # The words are those of options; on a line they are written without dashes.
        raise CliError(one_line(said).replace("--", "")) from None


def _read(text: str) -> Wanted:
    targets: list[str] = []
    errors, slow_s = False, None
    many: dict[str, list[str]] = {"from": [], "status": [], "route": []}
    headers: list[str] = []
    for word in _words(text):
        name, equals, value = word.partition("=")
        slow = next((each for each in _SLOW if word.startswith(each)), "")
        if word == _ERRORS:
            errors = True
        elif slow:
            slow_s = duration_with_unit(word[len(slow) :])
        elif word.startswith(_HEADER):
            if not equals:
                raise CliError(f"{word}: a header is looked for as header:NAME=VALUE")
            headers.append(word[len(_HEADER) :])
        elif equals and name in many:
            if not value:
                raise CliError(f"{word} says nothing behind the =")
            many[name].append(value)
        elif any(character in word for character in "=<>:"):
            raise CliError(f"{word!r} is nothing to look for", hint=f"write it as in: {EXAMPLE}")
        else:
            targets.append(word)
    only = filter_of(
        callers=many["from"],
        statuses=many["status"],
        errors=errors,
        slow_s=slow_s,
        headers=headers,
        routes=many["route"],
    )
    return Wanted(targets_of(targets), only)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        raise CliError("a quotation mark is open") from None
