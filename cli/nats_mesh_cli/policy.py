"""``policy validate``, ``explain`` and ``schema``: what is wrong with policy files, and what may stand in them."""

from __future__ import annotations

import inspect
import os
from typing import Any

from nats_mesh import PolicyError
from nats_mesh.model import check_name
from nats_mesh.policy import Policy, PolicySet, json_schema, load_folder
from nats_mesh.policy import explain as explain_field
from nats_mesh.policy.explain import default_of, written
from nats_mesh.policy.fields import Field, fields_of
from nats_mesh.policy.parts import Part
from nats_mesh.policy.schema import KINDS, LATER_KINDS
from nats_mesh_cli.errors import FAILED, OK, CliError, one_line, problem_documents
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, counted, dump, paint
from nats_mesh_cli.policies import target_of

__all__ = ["explain", "schema", "validate"]

_COLUMNS = (
    Column("POLICY", lambda r: str(r["policy"]), style=lambda _: "name", drop=0),
    Column("TARGET", lambda r: _target_text(r)),
    Column("PLACE", lambda r: f"{r['file']}:{r['line']}", drop=5),
)
_KIND_COLUMNS = (
    Column("KIND", lambda r: str(r["kind"]), style=lambda _: "name", drop=0),
    Column("APPLIED", lambda r: "yes" if r["applied"] else "not yet", drop=5),
    Column("SAYS", lambda r: str(r["text"]), drop=3, short=16),
)


def validate(options: Options, out: Out, folder: str) -> int:
    """Check every file of ``folder``, or the one file, and tell what is in it; 1 where something is wrong."""
    if not os.path.exists(folder):
        raise CliError(
            f"{folder}: there is no such {'file' if folder.endswith(('.yaml', '.yml', '.json')) else 'folder or file'}"
        )
    namespace = check_name("namespace", options.namespace or os.environ.get("MESH_NAMESPACE") or "default")
    policies, error = None, None
    try:
        policies = load_folder(folder, namespace=namespace)
    except PolicyError as found:
        error = found
    if options.format.structured:
        document = _verdict(folder, namespace, policies, error)
        out.data(dump(document, options.format, pretty=out.tty))
    elif policies is not None:
        _tell_good(options, out, namespace, policies)
    if error is None:
        return OK
    if not options.format.structured:
        _tell_bad(options, out, error)
    return FAILED


def _verdict(folder: str, namespace: str, policies: PolicySet | None, error: PolicyError | None) -> Record:
    return {
        "folder": folder,
        "namespace": namespace,
        "valid": error is None,
        "revision": None if policies is None else policies.revision,
        "policies": [] if policies is None else [_record(policy) for policy in policies.policies],
        "problems": [] if error is None else problem_documents(error),
    }


def _record(policy: Policy) -> Record:
    service, endpoints = target_of(policy)
    target = policy.target
    return {
        "policy": policy.name,
        "kind": policy.kind,
        "name": policy.document.metadata.name,
        "service": service or None,
        "endpoints": list(endpoints),
        "subset": (target.subset or None) if target else None,
        "file": policy.file,
        "line": policy.line,
    }


def _tell_good(options: Options, out: Out, namespace: str, policies: PolicySet) -> None:
    records = [_record(policy) for policy in policies.policies]
    out.rows(records, _COLUMNS, options.format, name=lambda r: str(r["policy"]))
    count = counted(len(records), "policy", "policies")
    out.note(
        f"{paint('ok:', 'ok', _colored(out))} {count} for namespace {namespace} (-n names another); nothing was applied"
    )


def _tell_bad(options: Options, out: Out, error: PolicyError) -> None:
    """A line for each problem: data for people and editors, unless nothing but names was asked for."""
    say = out.note if options.format is Format.NAME else out.data
    for problem in error.problems:
        say(one_line(str(problem)))
    count = len(error.problems)
    text = counted(count, "problem")
    out.note(f"{paint('not valid:', 'bad', _colored(out))} {text}; nothing in this folder would be applied")


def _colored(out: Out) -> bool:
    return out.stderr.isatty() and not out.colorless


def _target_text(record: Record) -> str:
    if record["service"] is None:
        return "the whole namespace"
    names = ",".join(record["endpoints"])
    target = f"{record['service']}.{names}" if names else str(record["service"])
    return f"{target}/{record['subset']}" if record["subset"] else target


def explain(options: Options, out: Out, name: str | None) -> None:
    """Say what a kind or one of its fields is for; without a name, which kinds there are."""
    if name is None:
        kinds = [
            {"kind": kind, "text": _doc(part), "applied": kind not in LATER_KINDS}
            for kind, part in KINDS.items()
        ]
        out.rows(kinds, _KIND_COLUMNS, options.format, name=lambda r: str(r["kind"]))
        return
    text = explain_field(name.strip("."))
    if options.format is Format.NAME:
        raise CliError(
            "policy explain: -o name has nothing to show", hint="use -o json, yaml, or leave -o out"
        )
    if options.format.structured:
        out.data(dump(_explained(name.strip(".")), options.format, pretty=out.tty))
        return
    first, *others = text.split("\n")
    out.data("\n".join([paint(first, "name", out.color), *others]))


def _explained(name: str) -> Record:
    """What is said of a name that exists, as data."""
    kind, *path = name.split(".")
    owner: type[Part] = KINDS[kind]
    if path and path[0] not in fields_of(owner):
        path = ["spec", *path]
    field: Field | None = None
    part: type[Part] | None = owner
    applied = kind not in LATER_KINDS
    for step in path:
        assert part is not None, "the name exists"
        owner, field = part, fields_of(part)[step]
        applied = applied and step not in owner.later
        part = field.part
    document: Record = {
        "name": name,
        "text": _doc(owner) if field is None else field.text,
        "applied": applied,
    }
    if field is not None:
        document |= _field_record(owner, field)
    inside = {} if part is None else fields_of(part)
    fields: dict[str, Any] = {
        key: {"text": each.text, "applied": applied and key not in part.later, **_field_record(part, each)}
        for key, each in inside.items()
        if part is not None
    }
    return {**document, "fields": fields}


def _field_record(owner: type[Part], field: Field) -> Record:
    return {"written": written(field), "default": default_of(owner, field), "required": field.required}


def _doc(part: type[Part]) -> str:
    return " ".join(inspect.cleandoc(part.__doc__ or "").split())


def schema(options: Options, out: Out) -> None:
    """The JSON Schema of a policy, for editors; also as YAML, but never as a table."""
    if options.format is Format.NAME:
        raise CliError("policy schema: -o name has nothing to show", hint="leave -o out")
    document = json_schema()
    structured = options.format if options.format.structured else Format.JSON
    out.data(dump(document, structured, pretty=True))
