"""What the server's permissions let us do, tried where nobody listens."""

from __future__ import annotations

from dataclasses import dataclass

from nats_mesh import Mesh, PermissionDeniedError
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.subjects import Subjects
from nats_mesh_cli.checks import BAD, GOOD, WARN, Finding

__all__ = ["check_permissions"]

#: A service and a route that nobody serves: what is tried there disturbs nobody.
_NOBODY = "mesh-check"


async def check_permissions(mesh: Mesh) -> list[Finding]:
    """What the server lets us do as this name: serve, call, discover."""
    denied = await _try(mesh, _probes(mesh.name, Subjects(mesh.namespace)))
    findings = []
    for what in ("serve", "call", "discover"):
        refused = [f"{probe.operation} {probe.needed}" for probe in denied if probe.what == what]
        name = f"may {what}"
        if not refused:
            findings.append(Finding(name, GOOD, f"as {mesh.name!r} in namespace {mesh.namespace!r}"))
            continue
        text = f"the server does not let {mesh.name!r} {' or '.join(refused)}"
        remedy = "grant it in the server's configuration, or check as the name of your credentials: --as NAME"
        findings.append(
            Finding(name, WARN if what == "discover" else BAD, text, remedy, {"refused": refused})
        )
    return findings


@dataclass(frozen=True, slots=True)
class _Probe:
    """One thing to try: to ``subscribe`` or ``publish`` on ``tried``, which needs a grant of ``needed``."""

    what: str
    operation: str
    tried: str
    needed: str


def _probes(me: str, subjects: Subjects) -> list[_Probe]:
    at, instance = subjects.prefix, new_id()
    return [
        _Probe("serve", "subscribe", subjects.rpc_of(me, _NOBODY), f"{at}rpc.{me}.*.*.*"),
        _Probe("serve", "subscribe", subjects.direct_of(me, instance), f"{at}direct.{me}.*.*.*"),
        _Probe("serve", "subscribe", subjects.cancel_of(me), f"{at}cancel.{me}.*"),
        _Probe("serve", "subscribe", f"$SRV.INFO.{me}", f"$SRV.*.{me}"),
        _Probe("serve", "subscribe", subjects.command_of(me), f"{at}control.command.{me}.*.*"),
        _Probe("serve", "publish", subjects.presence(me, instance), f"{at}presence.{me}.*"),
        _Probe("serve", "publish", f"_INBOX.{_NOBODY}", "_INBOX.>"),
        _Probe("call", "publish", subjects.rpc(_NOBODY, "ping", me), f"{at}rpc.*.*.*.{me}"),
        _Probe("call", "publish", subjects.cancel(_NOBODY, me), f"{at}cancel.*.{me}"),
        _Probe("discover", "subscribe", subjects.presence_of(), f"{at}presence.*.*"),
        _Probe("discover", "publish", f"$SRV.INFO.{_NOBODY}", "$SRV.INFO.*"),
        _Probe("discover", "publish", "$SRV.INFO", "$SRV.INFO"),
    ]


async def _try(mesh: Mesh, probes: list[_Probe]) -> list[_Probe]:
    """The probes that the server refused."""
    client = mesh.client
    listener = _Denials()
    client.transport.add_listener(listener)
    inbox, held = client.mux.one_way(_NOBODY), []
    try:
        for probe in probes:
            if probe.operation == "publish":
                client.transport.publish(probe.tried, b"", inbox)
            else:
                held.append(client.transport.subscribe(probe.tried, lambda *_: None))
        try:
            await client.transport.fence()
        except PermissionDeniedError:
            pass  # the listener has heard which
    finally:
        for subscription in held:
            client.transport.unsubscribe(subscription)
        client.transport.remove_listener(listener)
    # The server says "subscription" where we say "subscribe"; on the way its message may lose its case.
    return [probe for probe in probes if (probe.operation[:3], probe.tried.lower()) in listener.heard]


class _Denials:
    def __init__(self) -> None:
        self.heard: set[tuple[str, str]] = set()

    def on_disconnect(self, reason: str) -> None:
        """The fence says so."""

    def on_reconnect(self) -> None:
        """The fence has failed by then."""

    def on_denied(self, operation: str, subject: str) -> None:
        self.heard.add((operation[:3], subject.lower()))
