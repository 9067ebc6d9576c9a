"""``call``: one endpoint, one or several times, and what came back."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, TypedDict

from nats_mesh import CallError, Mesh, NoInstancesError, Reply, Status
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.errors import Executed
from nats_mesh_cli.bus import CALLER, ask, connected
from nats_mesh_cli.catalog import read_infos
from nats_mesh_cli.errors import OK, CliError, as_cli_error, one_line
from nats_mesh_cli.hints import missing_endpoint, missing_service
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, counted, dump, millis
from nats_mesh_cli.totals import Totals
from nats_mesh_cli.values import PLAIN, check_codec_name, parse_headers, parse_target, read_value

__all__ = ["Declared", "call", "declared_options", "explain", "shown_value"]

_LOOK_S = 0.5


class Declared(TypedDict, total=False):
    """Options of a call that the endpoint's declaration decides where nobody else does."""

    timeout: float | None
    idempotent: bool | None


async def call(
    options: Options,
    out: Out,
    target: str,
    text: str | None,
    *,
    headers: Sequence[str],
    count: int,
    codec: str,
    raw: bool,
    name: str | None,
) -> int:
    """Call and print; returns the exit code: that of the last failure, or 0."""
    parse_target(target)
    check_codec_name(codec)
    if options.format is Format.NAME:
        raise CliError("call: a reply has no name", hint="use -o json, yaml, or leave -o out")
    sent = parse_headers(headers)
    value = read_value(text, raw=raw)
    code = OK
    totals = Totals()
    try:
        async with connected(options, name or CALLER, calls=True) as mesh:
            declared = await declared_options(mesh, target, options.timeout_s)
            for _ in range(count):
                began = time.perf_counter()
                try:
                    reply = await mesh.request(
                        target,
                        value,
                        returns=bytes if raw else Any,
                        headers=sent,
                        codec=codec,
                        **declared,
                    )
                except CallError as error:
                    totals.add(time.perf_counter() - began, str(error.status))
                    failure = await explain(mesh, target, error)
                    out.error(failure, options.format)
                    code = failure.code
                    continue
                totals.add(time.perf_counter() - began, str(Status.OK))
                _print(options, out, reply, raw=raw)
    finally:  # also of a series that Ctrl-C ends
        if count > 1 and totals.calls:
            totals.tell(options, out)
    return code


async def declared_options(mesh: Mesh, target: str, timeout_s: float | None) -> Declared:
    """The options of a call: ``timeout_s`` where it is given, and what the endpoint declares where no policy says more.

    The library learns the latter beside the first call, which here may be the only one.
    """
    options = Declared() if timeout_s is None else Declared(timeout=timeout_s)
    service, endpoint = parse_target(target)
    if not service:
        return options
    facts = await mesh.client.directory.find(service, timeout_s=_LOOK_S)
    if facts is None:
        return options
    rules = mesh.client.outbound.policies.outbound(service, endpoint, mesh.name)
    if timeout_s is None and rules.timeout_s is None:
        options["timeout"] = facts.timeout_s(endpoint)
    if rules.idempotent is None:
        options["idempotent"] = facts.idempotent(endpoint)
    return options


def _print(options: Options, out: Out, reply: Reply[Any], *, raw: bool) -> None:
    if options.format is Format.WIDE:
        instance = reply.instance or "a service outside the mesh"
        out.note(
            f"{reply.status} from {instance} in {millis(reply.duration_s)}, attempt {reply.attempts}", "dim"
        )
        for header, text in reply.headers.pairs():
            out.note(f"{header}: {one_line(text)}", "dim")
    if raw:
        out.raw(reply.value)
        return
    value: Any = reply.value
    if isinstance(value, bytes):  # what came back is no JSON and no MessagePack
        legible = _text_of(value)
        if options.format.structured:
            value = {"base64": b64encode(value).decode()} if legible is None else legible
        elif not out.tty:
            out.raw(value)
            return
        elif legible is None:
            out.note(
                f"note: {counted(len(value), 'byte')}, and no text; --raw and a file take that as it is",
                "warn",
            )
            return
        else:
            out.data(legible.removesuffix("\n"))
            return
    out.data(shown_value(value, options.format, pretty=out.tty))


def shown_value(value: Any, fmt: Format, *, pretty: bool) -> str:
    """A value as the terminal or the next program gets it."""
    if fmt in (Format.TABLE, Format.WIDE):
        fmt = Format.JSON
    return dump(value, fmt, pretty=pretty)


def _text_of(data: bytes) -> str | None:
    """Bytes as text fit for a terminal, or ``None``."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\t\n" for c in text) else None


async def explain(mesh: Mesh, target: str, error: CallError) -> CliError:
    """The failure with what to do about it; looks around on the bus where the name may be wrong."""
    known = as_cli_error(error)
    assert known is not None, "every CallError can be told"
    if isinstance(error, NoInstancesError) and target.startswith(PLAIN):
        text = f"nobody listens on {target.removeprefix(PLAIN)}"
        return CliError(
            text,
            hint="is the subject right, and its service running?",
            code=known.code,
            document=known.document,
        )
    facts = [] if isinstance(error, NoInstancesError) else [f"executed: {error.executed}"]
    if error.attempts > 1:
        facts.append(f"attempts: {error.attempts}")
    if error.retry_after_s is not None:
        facts.append(f"retry after {millis(error.retry_after_s)}")
    if error.type:
        facts.append(f"{error.type} {dump(dict(error.details), Format.JSONL)}")
    text = known.message if not facts else f"{known.message} · {' · '.join(facts)}"
    hint = known.hint or await _way_out(mesh, target, error)
    return CliError(text, hint=hint, code=known.code, document=known.document)


async def _way_out(mesh: Mesh, target: str, error: CallError) -> str:
    service, endpoint = parse_target(target)
    if isinstance(error, NoInstancesError):
        infos = await _look(mesh)
        return missing_endpoint(service, endpoint, _here(infos, mesh)) or missing_service(
            service, infos, mesh.namespace
        )
    if error.status is Status.UNIMPLEMENTED and service:
        return missing_endpoint(service, endpoint, _here(await _look(mesh), mesh))
    if error.status is Status.DEADLINE_EXCEEDED:
        return "--timeout TIME waits longer"
    if error.status is Status.INVALID_ARGUMENT and service:
        return f"'nats-mesh describe {target}' shows what it takes"
    if error.status is Status.INTERNAL and error.executed is Executed.YES:
        return "the service's own log says what happened"
    return ""


def _here(infos: Sequence[InfoReply], mesh: Mesh) -> list[InfoReply]:
    return [i for i in infos if i.metadata.get("mesh.namespace", mesh.namespace) == mesh.namespace]


async def _look(mesh: Mesh) -> list[InfoReply]:
    try:
        replies = await ask(mesh, "$SRV.INFO", timeout_s=_LOOK_S)
    except CallError:
        return []  # looking around is a courtesy: what failed already has been said
    return read_infos(replies.payloads)[0]
