"""The document of ``why`` as text for people, in lines that are as long as their words: who writes them to a terminal
breaks them (:meth:`~nats_mesh_cli.output.Out.text`). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from nats_mesh.core.shares import share_text
from nats_mesh.policy.rules import DEFAULT
from nats_mesh_cli.chain_text import duration_text, value_text
from nats_mesh_cli.output import Record, counted, paint

__all__ = ["render"]

_NAME = 17
_SHOWN = 12
_MARKS = {"met": "✓", "by chance": "~", "not met": "✗", "out of reach": "-"}
_STYLES = {"met": "ok", "by chance": "warn", "not met": "dim", "out of reach": "dim"}
_TITLES = {
    "outbound": "At the caller {caller}, in the order in which the call meets it",
    "inbound": "At the instance, in the order in which the request meets it",
}


def render(document: Record, *, color: bool = False, wide: bool = False) -> str:
    """The whole text; ``wide`` also shows the parameters that have their defaults."""
    lines = [f"call {paint(document['target'], 'name', color)} as {paint(document['caller'], 'name', color)}"]
    lines += _facts(document)
    for problem in document["problems"]:
        lines += ["", f"{paint('note:', 'warn', color)} {problem['message']}"]
        if problem["hint"]:
            lines.append(f"      {problem['hint']}")
    lines += _routes(document, color)
    lines += _ways(document, color)
    first, *others = document["ways"]
    if others:
        lines += ["", paint(f"{share_text(first['share'])} → {first['text']}", "bold", color)]
    lines += _sides(document, first, color, wide)
    for other in others[:_SHOWN]:
        lines += _different(first, other, color, wide)
    if len(others) > _SHOWN:
        lines += ["", f"and {counted(len(others) - _SHOWN, 'further way')}: -o json shows all of them"]
    style = "bad" if document["fails_wholly"] else "bold"
    return "\n".join([*lines, "", paint(f"in short: {document['summary']}", style, color)])


def _facts(document: Record) -> list[str]:
    facts = {"namespace": document["namespace"]}
    if document["headers"]:
        facts["headers"] = ", ".join(
            f"{name}: {value}" for name, values in document["headers"].items() for value in values
        )
    said = document["arguments"]
    arguments = []
    if said["timeout_s"] is not None:
        arguments.append(f"timeout {duration_text(said['timeout_s'])}")
    if said["idempotent"] is not None:
        arguments.append("idempotent" if said["idempotent"] else "not idempotent")
    if said["idempotency_key"]:
        arguments.append("an idempotency key")
    facts["arguments"] = ", ".join(arguments)
    facts["policies"] = _policies(document)
    if not document["bus"]["asked"]:
        facts["bus"] = (
            f"not asked: {document['bus']['reason']}; so who serves what, what endpoints declare and who is there are "
            "not known, and this is what policies and defaults say"
        )
    return [f"  {key.ljust(11)}{value}" for key, value in facts.items() if value]


def _policies(document: Record) -> str:
    policies = document["policies"]
    source = policies["source"]
    if source is None:
        store = "there is no store on the bus" if document["bus"]["asked"] else "the bus cannot be asked"
        return f"none: {store}, and no --policies DIR or MESH_POLICIES"
    if source.startswith("bus,"):
        return f"{policies['count']} on the {source}"
    return f"{policies['count']} in {source} (revision {policies['revision']})"


# -- where it goes ------------------------------------------------------------------------------------


def _routes(document: Record, color: bool) -> Iterator[str]:
    if not document["routes"]:
        return
    yield ""
    yield paint("Routes that are about it, the least specific first", "bold", color)
    for route in document["routes"]:
        yield f"  {route['source']}"
        for rule in route["rules"]:
            mark = paint(_MARKS[rule["state"]], _STYLES[rule["state"]], color)
            yield f"    {mark} {rule['rule']}: {rule['says']}"
            yield f"      {_verdict(rule)}"


def _verdict(rule: Record) -> str:
    if rule["state"] == "out of reach":
        return "out of reach: every such call meets a rule above it"
    left = "" if rule["asked"] >= 1.0 else f" of the {share_text(rule['asked'])} that get here"
    if rule["state"] == "met":
        return f"met by all{left}" if left else "met"
    if rule["state"] == "by chance":
        return f"met by {share_text(rule['share'])}{left}"
    return f"not met: {'; '.join(_failing(match) for match in rule['matches'])}"


def _failing(match: Record) -> str:
    """What of a match does not hold, and what the call has in its place."""
    failing = [each for each in match["conditions"] if each["holds"] is False]
    texts = []
    for each in failing:
        if each["about"] == "share":
            texts.append(f"{each['says']}, and {each['found'][0]}")
            continue
        found = ", ".join(map(repr, each["found"])) if each["about"] == "header" else each["found"][0]
        texts.append(f"{each['says']}, and it is {found or 'not there'}")
    return " and ".join(texts) or "its share is 0%"


def _ways(document: Record, color: bool) -> Iterator[str]:
    if len(document["ways"]) == 1 and document["count"] is None:
        return
    yield ""
    yield paint("Where such calls go", "bold", color)
    for way in document["ways"]:
        number = ""
        if way["expected"] is not None:
            number = f", {way['expected']:,.4g} of {document['count']:,}"
            if way["deviation"]:
                number += f" (± {way['deviation']:,.2g})"
        who = "" if way["instances"] is None else f" ({counted(len(way['instances']), 'instance')})"
        fails = ""
        if way["fails"]:
            how = "surely" if all(each["sure"] for each in way["endings"]) else "most likely"
            who_fails = "they" if way["fails"] >= 1.0 else f"{share_text(way['fails'])} of them"
            fails = f"; {who_fails} {how} fail"
        yield f"  {share_text(way['share'])}{number} → {way['text']}{who}: {way['why']}{fails}"


# -- layers -------------------------------------------------------------------------------------------


def _sides(document: Record, way: Record, color: bool, wide: bool) -> Iterator[str]:
    for side, title in _TITLES.items():
        layers = way["layers"][side]
        if layers:
            yield ""
            yield paint(title.format(caller=document["caller"]), "bold", color)
        for layer in layers:
            yield from _layer(layer, color, wide)
            if side == "outbound" and layer["layer"] == "retry":
                yield from _retries(way)


def _layer(layer: Record, color: bool, wide: bool) -> Iterator[str]:
    name = layer["layer"].ljust(_NAME)
    style = "name" if layer["present"] else "dim"
    yield f"  {paint(name, style, color)}{layer['happens']}"
    if layer["note"] and layer["note"] not in layer["happens"]:
        yield f"{' ' * (_NAME + 2)}{layer['note']}"
    for key, each in layer["parameters"].items():
        if wide or each["source"] != DEFAULT:
            label = each["field"] or key.removesuffix("_s").replace("_", " ")
            yield f"{' ' * (_NAME + 4)}{label} {value_text(key, each)}: {each['source']}"


def _retries(way: Record) -> Iterator[str]:
    """After what another attempt is made, and after what none, by reasons."""
    again = [each for each in way["retries"] if each["again"]]
    if not again:
        return
    groups: dict[str, list[str]] = {}
    for each in (*again, *(each for each in way["retries"] if not each["again"])):
        after = f"again, after about {duration_text(round(each['delay_s'], 3))}"
        groups.setdefault(after if each["again"] else f"not ({each['reason']})", []).append(each["failure"])
    for what, failures in groups.items():
        yield f"{' ' * (_NAME + 4)}{what}: {'; '.join(failures)}"


def _different(first: Record, other: Record, color: bool, wide: bool) -> Iterator[str]:
    """The layers of a way that say something else than those of the first."""
    yield ""
    yield paint(f"{share_text(other['share'])} → {other['text']}: as above, but for", "bold", color)
    for side in _TITLES:
        known = {layer["layer"]: layer for layer in first["layers"][side]}
        for layer in other["layers"][side]:
            before = known.get(layer["layer"])
            if before is None or _said(before) != _said(layer):
                yield from _layer(layer, color, wide)
                if side == "outbound" and layer["layer"] == "retry":
                    yield from _retries(other)
        if known and not other["layers"][side]:
            yield "  at the instance there are no layers: it is outside the mesh"


def _said(layer: Record) -> tuple[object, ...]:
    return layer["happens"], layer["note"], layer["parameters"]
