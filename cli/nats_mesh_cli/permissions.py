"""What the server's permissions let us do, tried where nobody listens."""

from __future__ import annotations

from nats_mesh import Mesh, PermissionDeniedError
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.subjects import Subjects
from nats_mesh_cli.checks import BAD, GOOD, WARN, Finding

__all__ = ["check_permissions"]

#: A service and a route that nobody serves: what is tried there disturbs nobody.
_NOBODY = "mesh-check"


async def check_permissions(mesh: Mesh) -> list[Finding]:
    """What the server lets us do as this name: serve, call, discover. Tried where nobody listens."""
    me, subjects = mesh.name, Subjects(mesh.namespace)
    probes = {
        "serve": (
            [
                subjects.rpc_of(me, _NOBODY),
                subjects.direct_of(me, new_id()),
                subjects.cancel_of(me),
                f"$SRV.INFO.{me}",
                subjects.want_of,
            ],
            [subjects.presence(me, new_id()), f"_INBOX.{_NOBODY}"],
        ),
        "call": ([], [subjects.rpc(_NOBODY, "ping", me), subjects.cancel(_NOBODY, me)]),
        "discover": ([subjects.presence_of()], [f"$SRV.INFO.{_NOBODY}", "$SRV.INFO"]),
    }
    denied = await _try(mesh, probes)
    findings = []
    for what, (listen, publish) in probes.items():
        refused = [f"subscribe {s}" for s in listen if ("subscription", s.lower()) in denied]
        refused += [f"publish {s}" for s in publish if ("publish", s.lower()) in denied]
        name = f"may {what}"
        if not refused:
            findings.append(Finding(name, GOOD, f"as {me!r} in namespace {mesh.namespace!r}"))
            continue
        text = f"as {me!r} the server refuses to {'; '.join(refused)}"
        remedy = f"grant it in the server's configuration, or use the name of your credentials: --as NAME (now {me!r})"
        findings.append(
            Finding(name, WARN if what == "discover" else BAD, text, remedy, {"refused": refused})
        )
    return findings


async def _try(mesh: Mesh, probes: dict[str, tuple[list[str], list[str]]]) -> set[tuple[str, str]]:
    client = mesh.client
    listener = _Denials()
    client.transport.add_listener(listener)
    held = [
        client.transport.subscribe(subject, lambda *_: None)
        for listen, _ in probes.values()
        for subject in listen
    ]
    inbox = client.mux.one_way(_NOBODY)
    try:
        for _, publish in probes.values():
            for subject in publish:
                client.transport.publish(subject, b"", inbox)
        try:
            await client.transport.fence()
        except PermissionDeniedError:
            pass  # the listener has heard which
    finally:
        for subscription in held:
            client.transport.unsubscribe(subscription)
        client.transport.remove_listener(listener)
    return listener.heard


class _Denials:
    def __init__(self) -> None:
        self.heard: set[tuple[str, str]] = set()

    def on_disconnect(self, reason: str) -> None:
        """The fence says so."""

    def on_reconnect(self) -> None:
        """The fence has failed by then."""

    def on_denied(self, operation: str, subject: str) -> None:
        self.heard.add((operation, subject))
