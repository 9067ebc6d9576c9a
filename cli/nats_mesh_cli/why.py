"""``why``: a call that nobody makes, through both sides' layers, with each decision and the policy behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from nats_mesh import CallError, ConfigError, Mesh
from nats_mesh.core.deadline import check_timeout
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.explaining.calls import Question, explain_call, unanswered
from nats_mesh.explaining.foreseeing import Silence
from nats_mesh.model import check_name
from nats_mesh.policy import PolicySet
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.catalog import visible
from nats_mesh_cli.errors import FAILED, OK, CliError
from nats_mesh_cli.get import fetch
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, dump
from nats_mesh_cli.policies import live_policies, policies_of
from nats_mesh_cli.present import client_ids
from nats_mesh_cli.silence import silence_of, silent_among
from nats_mesh_cli.silent import Silent
from nats_mesh_cli.values import parse_headers, parse_target
from nats_mesh_cli.why_document import document_of
from nats_mesh_cli.why_heard import UNASKED, Told, listening
from nats_mesh_cli.why_text import render

__all__ = ["Seen", "look_around", "why"]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What holds (``policies``, from ``source``, where there is one), and who is there: the answers of all services of
    any namespace, and the names of pure clients of this one.

    ``infos`` is ``None`` where nobody could be asked, and ``reason`` then says why. ``told`` is what callers say of
    their circuits, by their names; ``silence`` what it means of services that nobody answers for it.
    """

    policies: PolicySet
    source: str | None = None
    infos: tuple[InfoReply, ...] | None = None
    clients: frozenset[str] = frozenset()
    reason: str = ""
    told: Mapping[str, Told] = {}
    silence: Mapping[str, Silence] = {}
    #: Instances that are connected and answer nothing, beside others that do.
    silent: tuple[Silent, ...] = ()

    def told_by(self, caller: str) -> Told:
        """What a caller says of its circuits."""
        if self.infos is None:
            return Told(asked=False, reason="each caller has its own, and nobody was asked")
        return self.told.get(caller, UNASKED)


async def why(
    options: Options,
    out: Out,
    target: str,
    *,
    caller: str | None,
    name: str | None,
    headers: Sequence[str],
    idempotent: bool | None,
    keyed: bool,
    count: int | None,
) -> int:
    """Print what would become of the call; 1 where it would fail. ``name`` is who asks, and who calls where no
    ``caller`` is said."""
    service, endpoint = parse_target(target)
    if not service:
        raise CliError(
            "why: a plain subject has no policies, and nobody's layers",
            hint="name a service: SERVICE.ENDPOINT",
        )
    if options.format is Format.NAME:
        raise CliError("why: -o name has nothing to show", hint="use -o json, yaml, or leave -o out")
    timeout_s = None if options.timeout_s is None else check_timeout("--timeout", options.timeout_s)
    caller = caller or name
    question = Question(
        service=check_name("service", service),
        endpoint=check_name("endpoint", endpoint),
        caller=check_name("caller", caller or CALLER),
        headers=parse_headers(headers),
        timeout_s=timeout_s,
        idempotent=idempotent,
        keyed=keyed,
    )
    # What --timeout says is the call's: whoever looks around has the time that looking takes.
    asked = None if caller is None else [question.caller]
    seen = await look_around(replace(options, timeout_s=None), out, asked, [question], name=name)
    policies = seen.policies
    try:
        explained = explain_call(question, policies, seen.infos, seen.silence)
    except ConfigError as error:
        raise CliError(f"why: {error}", code=FAILED) from None
    document = document_of(
        explained,
        policies,
        infos=None if seen.infos is None else visible(seen.infos, policies.namespace),
        everything=seen.infos or (),
        clients=seen.clients,
        reason=seen.reason,
        source=seen.source,
        count=count,
        named=caller is not None,
        now_s=time.time(),
        told=seen.told_by(question.caller) if caller is not None else _NOBODY,
        callers=seen.told if caller is None else {},
        silent=seen.silent,
    )
    if options.format.structured:
        out.data(dump(document, options.format, pretty=out.tty))
    else:
        out.text(render(document, color=out.color, wide=options.format is Format.WIDE))
    return FAILED if document["fails_wholly"] else OK


#: What is told of circuits where nobody said who calls.
_NOBODY: Final = Told(asked=False, reason="each caller has its own: --from CALLER asks for it")


async def look_around(
    options: Options,
    out: Out,
    callers: Sequence[str] | None,
    questions: Sequence[Question],
    *,
    name: str | None = None,
) -> Seen:
    """Ask everybody who is there, and the store, and hear what ``callers`` (``None``: all) say of their circuits; ask
    again for those services that ``questions`` come to and of which nobody answers. Where that cannot be, policies from
    files alone must do."""
    policies, source = policies_of(options)
    try:
        async with connected(options, name or CALLER) as mesh, listening(mesh, callers) as heard:
            (policies, source), infos, clients = await asyncio.gather(
                live_policies(options, mesh), fetch(mesh, options, out), client_ids(mesh)
            )
            own = mesh.client.transport.connection
            clients = {
                each: ids - {own} for each, ids in clients.items() if ids != {own}
            }  # who asks calls nobody
            here = visible(infos, mesh.namespace)
            if callers is None:
                callers = sorted({*(info.name for info in here), *clients})
            members = {each: _serving(each, here) | clients.get(each, set()) for each in callers}
            told, silence, silent = await asyncio.gather(
                heard.told(members), _silence(mesh, questions, policies, infos), silent_among(mesh, infos)
            )
            return Seen(
                policies=policies,
                source=source,
                infos=tuple(infos),
                clients=frozenset(clients),
                told=told,
                silence=silence,
                silent=tuple([each for each in silent if each.instance]),
            )
    except CallError as error:
        if source is None:  # there is nothing to answer from
            raise
        return Seen(policies=policies, source=source, reason=error.message or str(error))


async def _silence(
    mesh: Mesh, questions: Sequence[Question], policies: PolicySet, infos: Sequence[InfoReply]
) -> dict[str, Silence]:
    services: dict[str, None] = {}
    for question in questions:
        try:
            services |= dict.fromkeys(unanswered(explain_call(question, policies, infos)))
        except ConfigError:
            continue  # whoever explains it says what is wrong with it
    return await silence_of(mesh, list(services))


def _serving(service: str, infos: Sequence[InfoReply]) -> set[str]:
    """The instances of a service of the mesh: one outside it tells of nothing."""
    return {info.id for info in infos if info.name == service and "mesh.namespace" in info.metadata}
