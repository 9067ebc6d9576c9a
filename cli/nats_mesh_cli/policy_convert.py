"""``policy convert``: Istio's YAML as policies, and what of it has no meaning here."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence

from nats_mesh import PolicyError
from nats_mesh.model import check_name
from nats_mesh.policy import Policy
from nats_mesh.policy.files import read_files
from nats_mesh.policy.istio import Translation, Untranslated, translate_files, yaml_of
from nats_mesh.policy.layerless import layerless, without_layerless
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.reader import MAX_BYTES
from nats_mesh_cli.bus import run_async
from nats_mesh_cli.errors import FAILED, OK, CliError, one_line
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, counted, dump, paint
from nats_mesh_cli.policy_diff import LIVE, load_policies
from nats_mesh_cli.policy_given import policies_in

__all__ = ["convert"]

_STDIN = "stdin"
_STYLES = {"serious": "bad", "warning": "warn", "info": "dim"}
#: Where a policy names a subset, which may be defined by another file.
_OF_A_SUBSET = re.compile(r"spec\.(?:target|rules\[\d+\]\.(?:split|mirror)(?:\[\d+\])?)\.subset")


def convert(options: Options, out: Out, paths: Sequence[str], *, beside: Sequence[str], strict: bool) -> int:
    """Translate the files; 1 where ``strict`` and something has no meaning here. What they name may be in the files
    ``beside`` them, or in the store (``live``): those are looked at, and not translated."""
    namespace = check_name("namespace", options.namespace or os.environ.get("MESH_NAMESPACE") or "default")
    files = [(content, name) for path in paths for name, content in _contents(path)]
    found = translate_files(files, namespace=namespace)
    open_ends = _open_ends(found, _beside(options, out, beside, namespace), namespace)
    later = [(policy.name, path, what) for policy in found.policies for path, what in layerless(policy)]
    if options.format is Format.JSON:
        document: Record = {
            "policies": [each.value for each in found.converted],
            "untranslated": [_record(each) for each in found.untranslated],
            "notes": [_record(each) for each in found.notes],
            "unknown_subsets": open_ends,
            "looked_at": [*[name for _, name in files], *beside],
            "not_applied_yet": [{"policy": name, "path": path, "what": what} for name, path, what in later],
        }
        out.data(dump(document, options.format, pretty=out.tty))
    else:
        _print(options, out, found)
        _tell(out, found, open_ends, later)
        _tell_where(out, open_ends, beside)
    return FAILED if strict and found.untranslated else OK


def _contents(path: str) -> Iterator[tuple[str, bytes]]:
    """The files that a path means, each with its name."""
    if path == "-":
        yield _STDIN, sys.stdin.buffer.read(MAX_BYTES + 1)
        return
    held = read_files(path)
    if not held:
        raise CliError(f"{path}: there is no file called *.yaml, *.yml or *.json in it")
    for name, content in held.items():
        if isinstance(content, str):
            raise CliError(f"{name}: {content}")
        yield name, content


def _beside(options: Options, out: Out, paths: Sequence[str], namespace: str) -> tuple[Policy, ...]:
    """The policies of other files, and of the store."""
    files = [path for path in paths if path != LIVE]
    found = policies_in(files, out, namespace=namespace) if files else ()
    if LIVE in paths:
        found += run_async(load_policies(LIVE, options, out, namespace=namespace))
    return found


def _open_ends(found: Translation, beside: Sequence[Policy], namespace: str) -> list[Record]:
    """Subsets that are named here and defined neither here nor ``beside``. Whatever else does not go together is a
    :class:`PolicyError`."""
    problems = Problems()
    own = {policy.name for policy in found.policies}
    files = {policy.file for policy in found.policies}
    others = tuple([policy for policy in beside if policy.name not in own])
    PolicySet.collect(without_layerless((*found.policies, *others)), problems, namespace=namespace)
    error = problems.error()
    return [] if error is None else _sorted_out([each for each in error.problems if each.file in files])


def _sorted_out(problems: Sequence[PolicyError]) -> list[Record]:
    others = Problems()
    elsewhere: list[Record] = []
    for each in problems:
        if _OF_A_SUBSET.fullmatch(each.path):
            elsewhere.append({"file": each.file, "line": each.line, "path": each.path, "message": str(each)})
        else:
            text = str(each).partition(f"{each.path}: ")[2] or str(each)
            others.add(text, file=each.file, line=each.line, path=each.path)
    others.raise_if_any()
    return elsewhere


def _print(options: Options, out: Out, found: Translation) -> None:
    if not found.converted:
        return
    if options.format is Format.NAME:
        out.data("\n".join([policy.name for policy in found.policies]))
    elif options.format is Format.JSONL:
        out.data("\n".join([dump(each.value, options.format) for each in found.converted]))
    else:
        out.data(yaml_of(found.converted).removesuffix("\n"))


def _tell(
    out: Out, found: Translation, open_ends: Sequence[Record], later: Sequence[tuple[str, str, str]]
) -> None:
    colored = out.stderr.isatty() and not out.colorless
    for each in (*found.untranslated, *found.notes):
        out.note(f"{paint(f'{each.severity}:', _STYLES[each.severity], colored)} {one_line(str(each))}")
    for end in open_ends:
        out.note(f"{paint('elsewhere:', 'warn', colored)} {one_line(end['message'])}")
    names = sorted({name for name, _, _ in later})
    if names:
        text = f"this version does not apply {', '.join(names)} yet: policy validate and apply refuse them"
        out.note(f"{paint('not yet:', 'warn', colored)} {one_line(text)}")
    count = len(found.policies)
    said = f"{counted(count, 'policy', 'policies')}; {len(found.untranslated)} without a meaning here"
    if found.serious:
        said += (
            f", of which {counted(len(found.serious), 'changes', 'change')} where calls go or who may call"
        )
    out.note(said)


def _tell_where(out: Out, open_ends: Sequence[Record], beside: Sequence[str]) -> None:
    """Where was not looked for what is missing."""
    if not open_ends:
        return
    if LIVE in beside:
        out.note("not in the store of the namespace either; --with FILE looks at other files")
    else:
        out.note("the store was not looked at: --with live looks there, --with FILE at other files")


def _record(each: Untranslated) -> Record:
    return {
        "file": each.file,
        "line": each.line,
        "document": each.document,
        "path": each.path,
        "reason": each.reason,
        "severity": each.severity,
    }
