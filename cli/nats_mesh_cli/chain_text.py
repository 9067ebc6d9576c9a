"""The chain of ``describe`` as text for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.kinds import DURATION
from nats_mesh.policy.rules import DEFAULT
from nats_mesh.policy.schema import DestinationSpec, LimitSpec
from nats_mesh_cli.output import Column, Record, paint, table, width

__all__ = ["duration_text", "options_table", "side", "value_text"]

_INDENT = "  "
#: A layer's parameters are called as in a policy, without the block that the layer is named for.
_BLOCKS = ("retry.", "breaker.", "hedge.", "balancer.", "concurrency.")
_UNIT = "_s"
#: A longer value does not push all the sources to the right.
_COLUMN = 24


def duration_text(seconds: float) -> str:
    """A duration as policies and options take it: ``250ms``, ``1.5s``, ``5m``."""
    if seconds >= 60.0:
        for unit, factor in (("h", 3600.0), ("m", 60.0)):
            if seconds % factor == 0.0:
                return f"{seconds / factor:.0f}{unit}"
    return f"{seconds:g}s" if seconds >= 1.0 or not seconds else f"{seconds * 1e3:g}ms"


def value_text(key: str, parameter: Record) -> str:
    """The value of one parameter, with its unit."""
    value, field = parameter["value"], _field(parameter["field"])
    if value is None or value == "":
        words = "" if field is None or parameter["source"] != DEFAULT else field.default
        return words or "off"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if key.endswith(_UNIT) and (field is None or field.kind is DURATION):
        return duration_text(value)
    return str(value) if field is None or field.kind is None else str(field.kind.write(value))


def side(title: str, layers: Sequence[Record], *, color: bool) -> list[str]:
    """One side of the chain: a line for each layer, and below it its parameters with their sources."""
    labels = [_label(key, each) for layer in layers for key, each in layer["parameters"].items()]
    texts = [value_text(key, each) for layer in layers for key, each in layer["parameters"].items()]
    sizes = [
        max((width(text) for text in column if width(text) <= _COLUMN), default=0)
        for column in (labels, texts)
    ]
    name_size = max((width(layer["layer"]) for layer in layers), default=0)
    lines = ["", paint(title, "bold", color)]
    for layer in layers:
        name = layer["layer"] + " " * (name_size - width(layer["layer"]))
        lines.append(f"{_INDENT}{paint(name, _STYLE[layer['present']], color)}  {_state(layer, color)}")
        if layer["note"]:
            lines.append(f"{_INDENT * 2}{paint('note:', 'warn', color)} {layer['note']}")
        for key, each in layer["parameters"].items():
            label = _label(key, each)
            text = value_text(key, each)
            blanks = [" " * (size - width(cell)) for size, cell in zip(sizes, (label, text), strict=True)]
            lines.append(f"{_INDENT * 2}{label}{blanks[0]}  {text}{blanks[1]}  {_source(each, color)}")
    return lines


def options_table(options: Record, *, color: bool) -> str:
    """What applies to an endpoint's calls, in short."""
    rows = [{"option": key, **each} for key, each in options.items()]
    columns = (
        Column("OPTION", lambda r: str(r["option"]).removesuffix(_UNIT).removesuffix("_attempts")),
        Column("VALUE", _option_text),
        Column(
            "SOURCE", lambda r: _source(r, False), style=lambda r: "dim" if r["source"] == DEFAULT else ""
        ),
    )
    return table(rows, columns, color=color)


_STYLE = {True: "name", False: "dim", None: "dim"}


def _state(layer: Record, color: bool) -> str:
    if layer["present"]:
        return paint(layer["why"], "dim", color)
    if layer["present"] is None:
        return str(layer["reason"])
    return f"not in the chain: {layer['reason']}"


def _option_text(row: Record) -> str:
    key, value = row["option"], row["value"]
    if key == "retry_attempts":
        return "off" if value == 1 else f"{value} attempts"
    if key in ("breaker", "hedge"):
        on = "on" if key == "breaker" else "on, for idempotent calls"
        return on if value else "off"
    return value_text(key, row)


def _source(parameter: Record, color: bool) -> str:
    source = parameter["source"]
    running = parameter.get("running")
    text = paint(source, "dim", color and source == DEFAULT)
    if running is None or running == parameter["value"]:
        return text
    return f"{text}; the instances have {running} now"


def _label(key: str, parameter: Record) -> str:
    path = str(parameter["field"])
    if not path:
        return key.removesuffix(_UNIT).replace("_", " ")
    return next((path[len(block) :] for block in _BLOCKS if path.startswith(block)), path)


def _field(path: str) -> Field | None:
    """What a policy's schema says of a field by its path; ``None`` for what is no field."""
    found: Field | None = None
    part: Any = LimitSpec if path.startswith("concurrency.") else DestinationSpec
    for step in path.split(".") if path else ():
        found = fields_of(part)[step]
        part = found.part
    return found
