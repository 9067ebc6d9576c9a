"""What ``check`` looks at: each check is one function that returns one finding, with its remedy."""

from __future__ import annotations

import datetime
import importlib.metadata
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nats_mesh import CallError, Mesh, NoInstancesError, PermissionDeniedError
from nats_mesh.core.members import Instance
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.runner import loop_factory
from nats_mesh.wire.nats_client import missing_surface
from nats_mesh.wire.subjects import WIRE_VERSION
from nats_mesh_cli.catalog import instance_record
from nats_mesh_cli.output import counted

__all__ = [
    "BAD",
    "GOOD",
    "SKIPPED",
    "WARN",
    "Finding",
    "check_answers",
    "check_client",
    "check_clock",
    "check_jetstream",
    "check_loop",
    "check_payload",
    "check_server",
    "check_wire",
    "version_of",
]

GOOD, WARN, BAD, SKIPPED = "ok", "warn", "fail", "skip"

_WANTED_SERVER = (2, 12)
_OLDEST_SERVER = (2, 10)
_WANTED_PAYLOAD = 256 * 1024
_WARN_SKEW_S, _BAD_SKEW_S = 1.0, 30.0
_ASK_S = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``data`` are raw numbers, with their unit in the name."""

    check: str
    state: str
    text: str
    remedy: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As ``-o json`` shows it."""
        return {
            "check": self.check,
            "state": self.state,
            "text": self.text,
            "remedy": self.remedy,
            **self.data,
        }


def version_of(text: str) -> tuple[int, int]:
    """Major and minor of a version; (0, 0) where there is none to read."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def check_client() -> Finding:
    """Whether this nats-py is one that the mesh can stand on."""
    version = importlib.metadata.version("nats-py")
    if missing := missing_surface():
        text = f"{version} does not have {', '.join(missing)}: its public API is used, which is slower"
        return Finding("nats-py", WARN, text, "pip install 'nats-py>=2.16,<2.17'", {"version": version})
    return Finding(
        "nats-py", GOOD, f"{version}, with all that the mesh uses of it", data={"version": version}
    )


def check_loop() -> Finding:
    """Whether the faster event loop is there."""
    if loop_factory() is None:
        return Finding("uvloop", WARN, "not installed: calls take longer", "pip install 'nats-mesh[speed]'")
    return Finding("uvloop", GOOD, importlib.metadata.version("uvloop"))


async def check_server(mesh: Mesh) -> Finding:
    """Which server it is and how far away. Headers are there, or the connection would have been refused."""
    transport = mesh.client.transport
    rtts = [await transport.fence() for _ in range(3)]
    info = _server_info(mesh)
    version = str(info.get("version", ""))
    data = {"server": transport.server, "version": version, "rtt_ms": round(min(rtts) * 1000, 3)}
    text = f"nats-server {version or '(unknown version)'} at {transport.server}, {data['rtt_ms']} ms away, headers on"
    if version_of(version) < _OLDEST_SERVER:
        return Finding("server", BAD, text, "the mesh needs nats-server 2.10 or newer", data)
    if version_of(version) < _WANTED_SERVER:
        return Finding(
            "server", WARN, text, "policies in one step and global limits need nats-server 2.12", data
        )
    return Finding("server", GOOD, text, data=data)


def check_payload(mesh: Mesh) -> Finding:
    """Whether the server takes messages of the size that descriptions of services need."""
    size = mesh.client.transport.max_payload
    data = {"max_payload_bytes": size}
    text = f"messages up to {size / 1024:g} KiB"
    if size < _WANTED_PAYLOAD:
        remedy = (
            f"set max_payload to at least {_WANTED_PAYLOAD // 1024} KiB: services with many endpoints need it"
        )
        return Finding("max_payload", WARN, text, remedy, data)
    return Finding("max_payload", GOOD, text, data=data)


async def check_jetstream(mesh: Mesh) -> Finding:
    """Whether JetStream answers in this account."""
    missing = "without it calls work; policies, quotas and durable events do not"
    try:
        answer = await mesh.call(f"nats://{mesh.client.transport.jetstream}.INFO", timeout=_ASK_S)
    except NoInstancesError:
        on_server = bool(_server_info(mesh).get("jetstream"))
        remedy = (
            "enable JetStream for this account"
            if on_server
            else "start nats-server with -js, or use 'nats-mesh up'"
        )
        return Finding("jetstream", WARN, f"not there: {missing}", remedy)
    except CallError as error:
        denied = isinstance(error, PermissionDeniedError)
        remedy = "workloads need no JetStream API; operators need publish on $JS.API.>" if denied else ""
        return Finding("jetstream", SKIPPED if denied else WARN, f"cannot be asked: {error.message}", remedy)
    if isinstance(answer, dict) and isinstance(problem := answer.get("error"), dict):
        return Finding(
            "jetstream",
            WARN,
            f"{problem.get('description', 'an error')}: {missing}",
            "enable JetStream for this account",
        )
    streams = answer.get("streams", 0) if isinstance(answer, dict) else 0
    return Finding("jetstream", GOOD, f"there, {counted(streams, 'stream')}", data={"streams": streams})


async def check_clock(mesh: Mesh) -> Finding:
    """How far our wall clock is from the server's. Only a stream's description carries the server's date."""
    before = time.time()
    try:
        answer = await mesh.call(f"nats://{mesh.client.transport.jetstream}.STREAM.LIST", timeout=_ASK_S)
    except CallError:
        return Finding(
            "clock",
            SKIPPED,
            "the server tells its date with a stream's description alone, which cannot be read",
        )
    after = time.time()
    stamp = _date_of(answer)
    if stamp is None:
        return Finding(
            "clock",
            SKIPPED,
            "the server tells its date with a stream's description alone, and there is no stream",
        )
    skew_s = (before + after) / 2 - stamp
    data = {"skew_ms": round(skew_s * 1000, 1), "uncertainty_ms": round((after - before) * 500, 1)}
    side = "ahead of" if skew_s > 0 else "behind"
    text = f"{abs(skew_s) * 1000:.0f} ms {side} the server, ± {data['uncertainty_ms']} ms"
    state = BAD if abs(skew_s) > _BAD_SKEW_S else WARN if abs(skew_s) > _WARN_SKEW_S else GOOD
    remedy = (
        ""
        if state == GOOD
        else "keep the clocks in step (NTP): tokens and quotas look at the wall clock; deadlines do not"
    )
    return Finding("clock", state, text, remedy, data)


def _date_of(answer: Any) -> float | None:
    streams = answer.get("streams") if isinstance(answer, dict) else None
    if not isinstance(streams, list) or not streams or not isinstance(streams[0], dict):
        return None
    try:
        return datetime.datetime.fromisoformat(str(streams[0].get("ts"))).timestamp()
    except ValueError:
        return None


def check_wire(infos: Sequence[InfoReply]) -> Finding:
    """Whether every running instance speaks our version of the wire."""
    records = [instance_record(info, 0.0) for info in infos]
    mesh = [record for record in records if record["kind"] == "mesh"]
    other = [record for record in mesh if record["wire"] != WIRE_VERSION]
    data = {"instances": len(mesh), "foreign_instances": len(records) - len(mesh)}
    if other:
        names = ", ".join(sorted({f"{r['service']} ({r['host_pid']})" for r in other})[:5])
        return Finding(
            "wire",
            BAD,
            f"{len(other)} of {counted(len(mesh), 'instance speaks', 'instances speak')} another version: {names}",
            "run one version of nats-mesh everywhere",
            data,
        )
    text = "no instance runs here"
    if mesh:
        spoken = counted(len(mesh), "instance speaks", "instances speak")
        text = f"{'all ' if len(mesh) > 1 else ''}{spoken} version {WIRE_VERSION}"
    return Finding("wire", GOOD if mesh else SKIPPED, text, data=data)


def check_answers(heard: Sequence[Instance], infos: Sequence[InfoReply], ignored: int) -> list[Finding]:
    """Who is heard and does not answer, who answers and is not heard, and what nobody should say."""
    answered = {(info.name, info.id): info for info in infos if "mesh.namespace" in info.metadata}
    known = {(each.service, each.id): each for each in heard}
    silent = [f"{each.service} ({each.name})" for key, each in known.items() if key not in answered]
    unheard = [
        f"{i.name} ({i.metadata.get('mesh.instance', i.id)})"
        for key, i in answered.items()
        if key not in known
    ]
    findings = []
    if silent:
        remedy = "they announce themselves but answer no $SRV.INFO: look at their logs and permissions, restart them"
        findings.append(
            Finding(
                "instances", BAD, f"{len(silent)} do not answer: {_some(silent)}", remedy, {"silent": silent}
            )
        )
    if unheard:
        remedy = "they answer unheard: let them publish, and us subscribe to, mesh.*.presence.*.*"
        findings.append(
            Finding(
                "presence",
                WARN,
                f"{len(unheard)} are not heard: {_some(unheard)}",
                remedy,
                {"unheard": unheard},
            )
        )
    if ignored:
        remedy = "something publishes on presence subjects that is no instance of the mesh"
        findings.append(
            Finding(
                "presence", WARN, f"{ignored} announcements were not believed", remedy, {"ignored": ignored}
            )
        )
    if not findings:
        text = f"all {len(known)} that are heard answer" if known else "none runs here"
        findings.append(Finding("instances", GOOD if known else SKIPPED, text))
    return findings


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _server_info(mesh: Mesh) -> dict[str, Any]:
    found: dict[str, Any] = getattr(mesh.client.transport, "server_info", {})
    return found
