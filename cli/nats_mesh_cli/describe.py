"""``describe``: everything known of a service, an endpoint or an instance, as a document."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from nats_mesh import Mesh
from nats_mesh.discovery.services_api import InfoReply, StatsReply
from nats_mesh.layers.stack import INBOUND, OUTBOUND
from nats_mesh.model import check_name, is_name
from nats_mesh.policy import PolicySet
from nats_mesh.policy.schema import KINDS
from nats_mesh_cli.bus import connected
from nats_mesh_cli.catalog import MESH, endpoint_records, instance_record, service_records, visible
from nats_mesh_cli.chain import chain_of, options_of_endpoint
from nats_mesh_cli.counted import add_statistics, statistics_of
from nats_mesh_cli.describe_text import render
from nats_mesh_cli.effective import PRECEDENCE, Known
from nats_mesh_cli.errors import FAILED, CliError, did_you_mean
from nats_mesh_cli.get import fetch
from nats_mesh_cli.hints import listed, missing_endpoint, missing_service
from nats_mesh_cli.naming import is_instance
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, dump
from nats_mesh_cli.policies import about, endpoints_named, live_policies, policies_of, services_named, unheard
from nats_mesh_cli.silence import called_by_clients, silent_among
from nats_mesh_cli.silent import SILENT, services_meant, silent_error, silent_info, silent_text
from nats_mesh_cli.told import told_of

__all__ = ["Look", "describe", "describe_on", "document_of"]


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at beside the services: the policies (from ``source``, where there is one), and who would call."""

    policies: PolicySet
    source: str | None = None
    caller: str | None = None


async def describe(options: Options, out: Out, what: str, *, caller: str | None = None) -> None:
    """Print what is known of ``what``, as ``caller`` would meet it; exit code 1 where there is no such thing."""
    if options.format is Format.NAME:
        raise CliError("describe: -o name has nothing to show", hint="use -o json, yaml, or leave -o out")
    if caller is not None:
        check_name("caller", caller)
    policies_of(options)  # what is wrong with files is said whether there is a bus or not
    async with connected(options) as mesh:
        await describe_on(mesh, options, out, what, caller=caller)


async def describe_on(
    mesh: Mesh, options: Options, out: Out, what: str, *, caller: str | None = None
) -> None:
    """As :func:`describe`, on a connection that is there."""
    # All at once: each of them waits until nobody answers any more.
    service = what.partition(".")[0]
    (policies, source), everything, called, statistics = await asyncio.gather(
        live_policies(options, mesh),
        fetch(mesh, options, out),
        called_by_clients(mesh),
        statistics_of(mesh, service) if is_name(service) else _nothing(),
    )
    look = Look(policies=policies, source=source, caller=caller)
    infos = visible(everything, mesh.namespace)
    silent = await silent_among(mesh, infos, [services_meant(what), *called])
    hung = [silent_info(each, mesh.namespace) for each in silent]
    document = document_of(what, infos, time.time(), look, hung)
    if document is None:
        raise silent_error(silent, what) or _missing(what, infos, everything, mesh.namespace, policies)
    if named := [each for each in silent if each.service == document["service"]]:
        out.note(f"note: {silent_text(named)}", "bad")
    if document["running"]:
        if document["service"] != service:  # an instance was named by its id
            statistics = await statistics_of(mesh, document["service"])
        add_statistics(document, statistics)
    if options.format.structured:
        out.data(dump(document, options.format, pretty=out.tty))
    else:
        out.text(render(document, color=out.color, columns=out.columns))


async def _nothing() -> dict[str, StatsReply]:
    return {}


def document_of(
    what: str,
    infos: Sequence[InfoReply],
    now_s: float,
    look: Look | None = None,
    hung: Sequence[InfoReply] = (),
) -> Record | None:
    """The document of a service, a ``service.endpoint`` or an instance; ``None`` for what is not there. ``hung`` are
    connected and answer nothing (:func:`~nats_mesh_cli.silent.silent_info`): their service counts them.

    What does not run is described as far as policies name its service. :class:`nats_mesh.ConfigError` where the
    beginning of an id fits several instances.
    """
    if look is None:
        look = Look(policies=PolicySet.empty())
    document = _running(what, infos, now_s, look, hung) or _not_running(what, infos, look, hung)
    if document is None:
        return None
    return {
        **document,
        "caller": look.caller,
        "policies": {
            "source": look.source,
            "revision": None if look.source is None else look.policies.revision,
            "count": len(look.policies),
        },
        "precedence": list(PRECEDENCE),
    }


def _running(
    what: str, infos: Sequence[InfoReply], now_s: float, look: Look, hung: Sequence[InfoReply]
) -> Record | None:
    own = [info for info in infos if info.name == what]
    if own:
        return _service([*own, *(info for info in hung if info.name == what)], now_s, look)
    for record in endpoint_records(infos):
        if record["endpoint"] == what:
            instances = [instance_record(info, now_s) for info in infos if info.name == record["service"]]
            operated = _operated(instances, record["name"])
            known = Known(
                policies=look.policies,
                caller=look.caller,
                plugins_in=operated["plugins"]["inbound"],
                plugins_out=_plugins_of(look.caller, infos, now_s),
                faults=len(operated["faults"]),
                draining=[
                    each["host_pid"] or each["instance"] for each in instances if each["state"] == "draining"
                ],
            )
            return {
                "kind": "endpoint",
                "running": True,
                **_endpoint(record, look),
                "layers": chain_of(record, known),
                **operated,
            }
    return _instance(what, infos, now_s, look)


def _not_running(
    what: str, infos: Sequence[InfoReply], look: Look, hung: Sequence[InfoReply]
) -> Record | None:
    """What policies alone say of a service that nobody serves, or of an endpoint of it."""
    service, dot, name = what.partition(".")
    if not is_name(service) or (dot and not is_name(name)):
        return None
    if any(info.name == service for info in infos) or not about(look.policies, service):
        return None
    namespace = look.policies.namespace
    nothing = _operated([])
    state = SILENT if any(info.name == service for info in hung) else "not running"
    if dot:
        record = unheard(service, name, namespace)
        known = Known(policies=look.policies, caller=look.caller)
        return {
            "kind": "endpoint",
            "running": False,
            "state": state,
            **_endpoint(record, look),
            "layers": chain_of(record, known),
            **nothing,
        }
    names = [*endpoints_named(look.policies, service), "*"]
    return {
        "kind": "service",
        "running": False,
        "service": service,
        "origin": MESH,
        "namespace": namespace,
        "description": "",
        "versions": {},
        "state": state,
        "ready": 0,
        "labels": {},
        "instances": [],
        "endpoints": [_endpoint(unheard(service, each, namespace), look) for each in names],
        "layers": _layers(MESH),
        **nothing,
    }


def _service(own: Sequence[InfoReply], now_s: float, look: Look) -> Record:
    instances = [instance_record(info, now_s) for info in own]
    summary = service_records(instances)[0]
    return {
        "kind": "service",
        "running": True,
        "service": summary["service"],
        "origin": summary["kind"],
        "namespace": summary["namespace"],
        "description": next((info.description for info in own if info.description), ""),
        "versions": summary["versions"],
        "state": summary["state"],
        "ready": summary["ready"],
        "labels": summary["labels"],
        "instances": instances,
        "endpoints": [_endpoint(record, look) for record in endpoint_records(own)],
        "layers": _layers(summary["kind"]),
        **_operated(instances),
    }


def _endpoint(record: Record, look: Look) -> Record:
    kept = ("endpoint", "service", "name", "namespace", "versions", "instances", "request", "response")
    return {
        **{key: record[key] for key in kept},
        "origin": record["kind"],
        "subject": record["subject"],
        "queue": record["queue"],
        "schema_hash": record["schema_hash"],
        "schema_differs": len(record["schemas"]) > 1,
        "schema_omitted": record["schema_omitted"],
        "request_schema": record["request_schema"],
        "response_schema": record["response_schema"],
        "options": options_of_endpoint(record, Known(policies=look.policies, caller=look.caller)),
        "telemetry": told_of(look.policies, record["service"], record["name"]),
    }


def _instance(prefix: str, infos: Sequence[InfoReply], now_s: float, look: Look) -> Record | None:
    records = {(info.name, info.id): instance_record(info, now_s) for info in infos}
    found = [r for r in records.values() if is_instance(r, prefix, whole=True)]
    found = found or [r for r in records.values() if is_instance(r, prefix)]
    if not prefix or not found:
        return None
    if len(found) > 1:
        names = [f"{r['service']} {r['instance']} ({r['host_pid'] or 'foreign'})" for r in found]
        raise CliError(
            f"{prefix!r} fits {len(found)} instances", hint=f"give more of the id: {listed(names)}"
        )
    record = found[0]
    own = [info for info in infos if (info.name, info.id) == (record["service"], record["instance"])]
    return {
        **record,
        "kind": "instance",
        "running": True,
        "origin": record["kind"],
        "endpoints": [_endpoint(each, look) for each in endpoint_records(own)],
        "layers": _layers(record["kind"]),
        **_operated([record]),
    }


def _operated(instances: Sequence[Record], endpoint: str | None = None) -> Record:
    """What operators injected into these instances, and the plug-ins that run in them."""
    return {
        "faults": [
            {"instance": each["instance"], **fault}
            for each in instances
            for fault in each["faults"]
            if endpoint is None or fault["endpoint"] in ("", endpoint)
        ],
        "plugins": {
            side: list(dict.fromkeys(name for each in instances for name in each["plugins"][side]))
            for side in ("inbound", "outbound")
        },
    }


def _plugins_of(caller: str | None, infos: Sequence[InfoReply], now_s: float) -> list[str] | None:
    """The plug-ins that run at a caller; ``None`` where it is no service that runs here, and nobody can say."""
    own = [instance_record(info, now_s) for info in infos if info.name == caller]
    own = [each for each in own if each["kind"] == MESH]
    return list(_operated(own)["plugins"]["outbound"]) if own else None


def _layers(origin: str) -> Record:
    """The chain that a call passes; a service outside the mesh has the caller's side alone."""
    inbound = INBOUND if origin == MESH else ()
    return {
        "outbound": [{"layer": position.name, "why": position.why} for position in OUTBOUND],
        "inbound": [{"layer": position.name, "why": position.why} for position in inbound],
    }


def _missing(
    what: str,
    infos: Sequence[InfoReply],
    everything: Sequence[InfoReply],
    namespace: str,
    policies: PolicySet,
) -> CliError:
    kind, slash, policy = what.partition("/")
    if slash:
        text = f"{what!r} is no service, endpoint or instance"
        shown = next((each for each in KINDS if each.lower() == kind.lower()), None)
        hint = (
            "name one of these"
            if shown is None
            else f"'nats-mesh policy get {shown}/{policy}' shows a policy"
        )
        return CliError(text, hint=hint, code=FAILED)
    service, dot, endpoint = what.partition(".")
    text = f"there is no service, endpoint or instance {what!r} in namespace {namespace!r}"
    if dot and any(info.name == service for info in infos):
        hint = missing_endpoint(service, endpoint, infos)
        if naming := about(policies, service, endpoint):
            hint = f"{hint}; {listed(naming)} is about it all the same"
        return CliError(text, hint=hint, code=FAILED)
    known = [r["endpoint"] for r in endpoint_records(infos)] + sorted({info.name for info in infos})
    hint = missing_service(service, everything, namespace)
    if "use -n" not in hint and (guess := did_you_mean(what, [*known, *services_named(policies)])):
        hint = guess
    return CliError(text, hint=hint, code=FAILED)
