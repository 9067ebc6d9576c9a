"""``why --trace``: calls that were made, through both sides' layers: what each did with them, as their spans have it,
and what the policies of now say of such calls."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nats_mesh import ConfigError
from nats_mesh.explaining.calls import Question, explain_call
from nats_mesh.telemetry.series import OTHER, PLAIN
from nats_mesh.telemetry.spans import Trace, assemble, summary_of
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.catalog import visible
from nats_mesh_cli.errors import FAILED, OK, CliError
from nats_mesh_cli.hints import nearest
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, dump, millis, paint
from nats_mesh_cli.trace_document import notes_of, took_text
from nats_mesh_cli.trace_finding import Query, look, one_of
from nats_mesh_cli.values import parse_target
from nats_mesh_cli.why import Seen, look_around
from nats_mesh_cli.why_calls import calls_of
from nats_mesh_cli.why_document import document_of
from nats_mesh_cli.why_text import render
from nats_mesh_cli.why_timeouts import timeout_of_call, timeout_text

__all__ = ["why_trace"]

#: Of how many kinds of calls it is said what policies say.
_MAX_EXPLAINED = 20
#: How many calls are told of.
_MAX_CALLS = 100
_LAYER = 12


async def why_trace(
    options: Options, out: Out, which: str, target: str | None, *, name: str | None = None
) -> int:
    """Explain the calls of a trace, or those to ``target`` alone, with what `trace` notes of gaps; 1 where there are
    none."""
    if options.format is Format.NAME:
        raise CliError("why: -o name has nothing to show", hint="use -o json, yaml, or leave -o out")
    async with connected(options, name or CALLER) as mesh:
        found = await look(mesh, Query(keep=False), timeout_s=options.timeout_s or 5.0)
    for note in found.notes:
        out.note(note, "dim")
    trace = assemble(one_of(found, which).values())
    calls = calls_of(trace)
    if target is not None:
        service, endpoint = parse_target(target)
        chosen = [each for each in calls if (each["service"], each["endpoint"]) == (service, endpoint)]
        if not chosen:
            names = {f"{each['service']}.{each['endpoint']}" for each in calls}
            raise CliError(
                f"no call to {target} in trace {trace.trace}", hint=nearest(target, names), code=FAILED
            )
        calls = chosen
    if len(calls) > _MAX_CALLS:
        out.note(
            f"note: of {len(calls)} calls the first {_MAX_CALLS} are told: with SERVICE.ENDPOINT, those to it",
            "warn",
        )
        calls = calls[:_MAX_CALLS]
    callers = list(dict.fromkeys(each["caller"] for each in calls if each["caller"] != OTHER))[
        :_MAX_EXPLAINED
    ]
    questions = _questions(calls)
    if (kinds := len(_kinds(calls))) > len(questions):
        out.note(f"note: what policies say now is told of {len(questions)} of {kinds} kinds of calls", "warn")
    seen = await look_around(
        replace(options, timeout_s=None), out, callers, list(questions.values()), name=name
    )
    explained = _explained(questions, seen)
    for call in calls:
        call["why"] = explained.get((call["caller"], call["service"], call["endpoint"]))
        call["timeout"] = timeout_of_call(call)
    if options.format.structured:
        document = {"trace": trace.trace, "notes": notes_of(trace), "calls": calls}
        out.data(dump(document, options.format, pretty=out.tty))
        return OK
    full = target is not None or options.format is Format.WIDE
    out.text(_text(trace, calls, explained, color=out.color, full=full, wide=options.format is Format.WIDE))
    return OK


def _questions(calls: Sequence[Record]) -> dict[tuple[str, str, str], Question]:
    """Such calls, each kind once; of many kinds the first ones."""
    return {
        (caller, service, endpoint): Question(service=service, endpoint=endpoint, caller=caller)
        for caller, service, endpoint in list(_kinds(calls))[:_MAX_EXPLAINED]
    }


def _kinds(calls: Sequence[Record]) -> dict[tuple[str, str, str], None]:
    """Who called what; nothing of those that policies cannot be about."""
    keys = [(call["caller"], call["service"], call["endpoint"]) for call in calls]
    return dict.fromkeys([key for key in keys if OTHER not in key and key[1] != PLAIN])


def _explained(
    questions: Mapping[tuple[str, str, str], Question], seen: Seen
) -> dict[tuple[str, str, str], Record]:
    """What ``why`` says of such calls now."""
    found: dict[tuple[str, str, str], Record] = {}
    for key, question in questions.items():
        try:
            explained = explain_call(question, seen.policies, seen.infos, seen.silence)
        except ConfigError:
            continue  # a service outside the mesh by now, or a name that none may have
        found[key] = document_of(
            explained,
            seen.policies,
            infos=None if seen.infos is None else visible(seen.infos, seen.policies.namespace),
            everything=seen.infos or (),
            clients=seen.clients,
            reason=seen.reason,
            source=seen.source,
            count=None,
            named=True,
            now_s=time.time(),
            told=seen.told_by(key[0]),
            silent=seen.silent,
        )
    return found


def _text(
    trace: Trace,
    calls: Sequence[Record],
    explained: Mapping[tuple[str, str, str], Record],
    *,
    color: bool,
    full: bool,
    wide: bool,
) -> str:
    lines = [f"trace {paint(trace.trace, 'name', color)}, {took_text(summary_of(trace))}"]
    for call in calls:
        status = paint(call["status"], "bad" if call["failed"] else "ok", color)
        name = paint(f"{call['service']}.{call['endpoint']}", "name", color)
        took = f"{millis(call['offset_ms'] / 1e3)} in, {millis(call['duration_ms'] / 1e3)}"
        lines += ["", f"{call['caller']} called {name}: {status} ({took})"]
        for step in call["steps"]:
            mark = paint("✓", "ok", color) if step["ok"] else paint("✗", "bad", color)
            lines.append(f"  {mark} {step['layer'].ljust(_LAYER)}{step['happened']}")
        if call["timeout"] is not None:
            lines.append(f"  {paint('now', 'dim', color)} {timeout_text(call['timeout'])}")
        why = call["why"]
        if why is not None and not full:
            lines.append(f"  {paint('now', 'dim', color)} such a call {why['summary']}")
    if full:
        for document in explained.values():
            lines += ["", paint("Such a call now, with the policies and instances of now", "bold", color), ""]
            lines.append(render(document, color=color, wide=wide))
    lines += [f"note: {each}" for each in notes_of(trace)]
    return "\n".join(lines)
