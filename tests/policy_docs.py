"""The tables of docs/policies.md, written from the schema: `python -m tests.policy_docs` brings them up to date."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from nats_mesh.policy.explain import NOT_YET, default_of, written
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.parts import Metadata, Part, Target
from nats_mesh.policy.schema import KINDS, LATER_KINDS
from tests.tools import ROOT

__all__ = ["PAGE", "brought_up_to_date", "tables"]

PAGE = ROOT / "docs" / "policies.md"
_START = "<!-- Written by `python -m tests.policy_docs`; a test holds it against the schema. -->\n"
_END = "<!-- end -->\n"


def tables() -> str:
    """Every field of every kind, once."""
    lines: list[str] = []
    shown: set[type[Part]] = set()
    for part, title in ((Metadata, "`metadata`"), (Target, "`target`, in every kind's `spec`")):
        lines += _section(f"### {title}", part, shown)
    for kind, document in KINDS.items():
        spec = fields_of(document)["spec"].part
        assert spec is not None
        lines += [f"### {kind}", "", inspect.cleandoc(document.__doc__ or ""), ""]
        lines += [f"*{NOT_YET}*", ""] if kind in LATER_KINDS else []
        lines += _section("", spec, shown)
    return "\n".join(lines)


def _section(title: str, part: type[Part], shown: set[type[Part]], path: str = "") -> Iterator[str]:
    shown.add(part)
    fields = fields_of(part)
    if title:
        yield from (title, "", inspect.cleandoc(part.__doc__ or ""), "")
    yield from ("| field | written as | default | says |", "| --- | --- | --- | --- |")
    for field in fields.values():
        yield f"| `{field.name}` | {written(field)} | {_default(part, field)} | {_text(part, field, shown)} |"
    yield ""
    for field in fields.values():
        if field.part is not None and field.part not in shown:
            below = f"{path}{field.name}{'[]' if field.each == 'item' else '.NAME' if field.each else ''}"
            yield from _section(f"#### `{below}`", field.part, shown, f"{below}.")


def _default(part: type[Part], field: Field) -> str:
    default = default_of(part, field)
    value = field.kind is not None and not field.required and field.default in ("", "off")
    return f"`{default}`" if value or default == "off" else default


def _text(part: type[Part], field: Field, shown: set[type[Part]]) -> str:
    above = " See above." if field.part is not None and field.part in shown else ""
    later = " *Not applied yet.*" if field.name in part.later else ""
    return f"{field.text}{above}{later}"


def brought_up_to_date(page: str) -> str:
    """``page`` with the tables as they should be."""
    before, _, rest = page.partition(_START)
    _, _, after = rest.partition(_END)
    return f"{before}{_START}\n{tables()}\n{_END}{after}"


if __name__ == "__main__":
    PAGE.write_text(brought_up_to_date(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
