"""``policy diff``: which documents differ between two sets of policies, and which recorded calls would notice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

import msgspec

from nats_mesh import CallError, ConfigError
from nats_mesh.model import check_name
from nats_mesh.policy import Policy
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.whatif.difference import Change, difference
from nats_mesh.policy.whatif.recording import MAX_LINE, Recording, read_recording
from nats_mesh.policy.whatif.replay import Candidate, replay
from nats_mesh.policy.whatif.replay_report import Replay
from nats_mesh.wire.kv import KvError
from nats_mesh_cli.bus import connected
from nats_mesh_cli.errors import BUS, FAILED, OK, CliError, as_cli_error, exit_code_of
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, counted, dump, paint
from nats_mesh_cli.policy_given import live_policies, policies_in
from nats_mesh_cli.replay_text import replay_lines

__all__ = ["LIVE", "diff", "load_policies"]

#: What stands for the policies in the store of the bus.
LIVE = "live"
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_STYLES = {"+": "ok", "-": "bad", "@": "name"}


async def load_policies(source: str, options: Options, out: Out, *, namespace: str) -> tuple[Policy, ...]:
    """The documents of a file or a folder, or with :data:`LIVE` those of the store on the bus.

    They are not held against each other. :class:`nats_mesh.PolicyError` has everything that is wrong with files.
    """
    if source != LIVE:
        return policies_in([source], out, namespace=namespace)
    try:
        async with connected(options) as mesh:
            client = mesh.client
            store = PolicyStore(mesh.namespace, transport=client.transport, mux=client.mux)
            await store.open(make=False)
            policies, unreadable = await live_policies(store, out, namespace=namespace)
    except (KvError, CallError) as error:
        # 1 would say that something differs.
        said = as_cli_error(error)
        text, hint = (str(error), "") if said is None else (said.message, said.hint)
        raise CliError(f"live: {text}", hint=hint, code=max(BUS, exit_code_of(error))) from None
    if unreadable:
        raise CliError(
            f"live: {counted(unreadable, 'document')} of the store cannot be read, so nothing can be compared with it"
        )
    return policies


async def diff(options: Options, out: Out, old: str, new: str, recording: str | None) -> int:
    """Compare; 0 where nothing differs, 1 where something does."""
    namespace = check_name("namespace", options.settings().namespace)
    before = await load_policies(old, options, out, namespace=namespace)
    after = await load_policies(new, options, out, namespace=namespace)
    changes = difference(before, after, namespace=namespace)
    if recording is None:
        _tell(options, out, old, new, changes, None, None)
        return FAILED if changes else OK
    one, other = (Candidate.of(each, namespace=namespace) for each in (before, after))
    found = _read(recording)
    if found.header.namespace != namespace:
        raise CliError(
            f"{recording}: was recorded in the namespace {found.header.namespace}, and this is {namespace}",
            hint=f"give -n {found.header.namespace}",
        )
    tried = replay(found, one, other)
    _tell(options, out, old, new, changes, found, tried)
    return OK if tried.same else FAILED


def _read(path: str) -> Recording:
    try:
        with open(path, "rb") as file:
            return read_recording(_lines(file), file=path)
    except ConfigError as error:
        raise CliError(str(error)) from None


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, none of which takes more memory than one that can be read."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def _tell(
    options: Options,
    out: Out,
    old: str,
    new: str,
    changes: tuple[Change, ...],
    recording: Recording | None,
    tried: Replay | None,
) -> None:
    fmt = options.format
    if fmt is Format.NAME:
        if changes:
            out.data("\n".join(change.policy for change in changes))
        return
    if fmt.structured:
        document: Record = {
            "old": old,
            "new": new,
            "same": not changes if tried is None else tried.same,
            "changes": [msgspec.to_builtins(change) for change in changes],
            "replay": None if recording is None or tried is None else _document(recording, tried),
        }
        out.data(dump(document, fmt, pretty=out.tty))
    elif tried is None or recording is None:
        for line in _diff_lines(changes, out.color):
            out.data(line)
    else:
        for line in _summary_lines(changes, out.color):
            out.data(line)
        for line in replay_lines(tried, color=out.color, wide=fmt is Format.WIDE):
            out.data(line)
    if not fmt.structured:
        if not changes:
            out.note(f"{old} and {new} say the same", "ok")
        if recording is not None:
            _complain(recording, out)


def _diff_lines(changes: Iterable[Change], color: bool) -> Iterator[str]:
    for change in changes:
        for line in change.diff.split("\n"):
            style = "bold" if line.startswith(("---", "+++")) else _STYLES.get(line[:1], "")
            yield paint(line, style, color)


def _summary_lines(changes: Iterable[Change], color: bool) -> Iterator[str]:
    for change in changes:
        sign = _SIGNS[change.kind]
        where = change.after or change.before
        text = f"{sign} {change.policy} {change.kind}{f' ({where})' if where else ''}"
        yield paint(text, _STYLES.get(sign, "warn"), color)


def _complain(recording: Recording, out: Out) -> None:
    for each in recording.damaged:
        out.note(f"note: line {each.line} of the recording is damaged and left out: {each.reason}", "warn")
    if recording.damaged_lines > len(recording.damaged):
        out.note(
            f"note: {counted(recording.damaged_lines, 'line')} of the recording damaged in all",
            "warn",
        )
    end = recording.end
    if end is None:
        out.note("note: the recording has no last line: it was cut off, or goes on", "warn")
    elif end.dropped or end.lost:
        out.note(
            f"note: {counted(end.dropped, 'call')} of the sample and {counted(end.lost, 'message')} are missing in the "
            "recording",
            "warn",
        )


def _document(recording: Recording, tried: Replay) -> Record:
    document: Record = msgspec.to_builtins(tried)
    return {
        **document,
        "recording": {
            **{k: v for k, v in msgspec.to_builtins(recording.header).items() if k != "record"},
            "calls": len(recording.calls),
            "damaged_lines": recording.damaged_lines,
            "damaged": msgspec.to_builtins(recording.damaged),
            "end": None
            if recording.end is None
            else {k: v for k, v in msgspec.to_builtins(recording.end).items() if k != "record"},
        },
    }
