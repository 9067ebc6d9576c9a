"""The options that every command takes, before or behind its name."""

from __future__ import annotations

import enum
import math
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from nats_mesh_cli.errors import CliError

if TYPE_CHECKING:
    from nats_mesh.settings import Settings
    from nats_mesh_cli.output import Out

__all__ = [
    "Format",
    "Options",
    "PoliciesOption",
    "Session",
    "duration",
    "duration_with_unit",
    "options_of",
    "out_of",
]

#: For commands whose calls, or whose services, follow policies.
PoliciesOption = Annotated[
    str | None,
    typer.Option(
        "--policies", metavar="DIR", help="Follow the policy files of this folder; else MESH_POLICIES."
    ),
]

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 86_400.0


class Format(enum.StrEnum):
    """What ``-o`` takes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    NAME = "name"

    @property
    def structured(self) -> bool:
        """Whether a program reads it."""
        return self in (Format.JSON, Format.JSONL, Format.YAML)


@dataclass(frozen=True, slots=True)
class Options:
    """The global options as given; ``None`` means: not given. ``timeout_s`` in seconds.

    ``policies`` is the folder of ``--policies``, of those commands that take it.
    """

    server: str | None = None
    context: str | None = None
    creds: str | None = None
    namespace: str | None = None
    format: Format = Format.TABLE
    timeout_s: float | None = None
    color: bool = True
    policies: str | None = None

    def settings(self) -> Settings:
        """How to join the mesh under these options; :class:`nats_mesh.ConfigError` where that cannot work."""
        from nats_mesh.settings import Settings

        if self.policies is not None and not os.path.isdir(self.policies):
            text = "is no folder" if os.path.exists(self.policies) else "there is no such folder"
            raise CliError(
                f"--policies {self.policies}: {text}", hint="name the folder that the files are in"
            )
        given = {} if self.policies is None else {"MESH_POLICIES": self.policies}
        return Settings.resolve(
            servers=self.server,
            namespace=self.namespace,
            credentials=self.creds,
            context=self.context,
            env={**os.environ, **given},
        )


class Session:
    """What one run of the program shares: its options once they are read, and where it writes."""

    __slots__ = ("options", "out", "read")

    def __init__(self, out: Out) -> None:
        self.options = Options()
        self.read = False  # whether the options are those of the command line
        self.out = out


def options_of(ctx: typer.Context, policies: str | None = None) -> Options:
    """The global options of the command that runs, with its ``--policies`` where it takes them."""
    session: Session = ctx.obj
    return session.options if policies is None else replace(session.options, policies=policies)


def out_of(ctx: typer.Context) -> Out:
    """Where the command that runs writes."""
    session: Session = ctx.obj
    return session.out


def duration_with_unit(text: str) -> float:
    """As :func:`duration`, for what a unit forgotten would make a thousand times too long."""
    if text.strip().replace(".", "", 1).isdigit():
        raise CliError(f"{text!r} has no unit", hint=f"write {text.strip()}ms or {text.strip()}s")
    return duration(text)


def duration(text: str) -> float:
    """``250ms``, ``2s``, ``1.5m``, ``1h`` or a plain number of seconds, as seconds; for typer's ``parser=``."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else math.nan
    if not 0.0 < seconds <= _LONGEST_S:
        raise CliError(f"{text!r} is no duration", hint="write 250ms, 2s, 1.5m or 1h (above 0, at most 24h)")
    return seconds
