"""What is there, kept true: presence tells of the mesh at once, a question now and then of all else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import anyio
import msgspec

from nats_mesh import DisconnectedError, Mesh
from nats_mesh.clock import SYSTEM_CLOCK
from nats_mesh.core.members import Change, ChangeKind, Health, Instance
from nats_mesh.core.registry import Registry
from nats_mesh.discovery.observer import Observer
from nats_mesh.discovery.services_api import EndpointReply, InfoReply
from nats_mesh.wire.subjects import Subjects
from nats_mesh_cli.catalog import announcement_of

__all__ = ["Live", "as_info", "difference"]

#: How often everybody is asked, which finds services outside the mesh and namespaces that are new (seconds).
ASK_EVERY_S = 10.0
#: After somebody joined, ask for the schemas this much later: several usually come together (seconds).
_SOON_S = 0.5
#: A service outside the mesh is gone when it did not answer this often in a row.
_MISSES = 2
_MAX_NAMESPACES = 256
_MAX_REASONS = 1024
_VOLATILE = ("in_flight", "age_s", "full", "left_ms", "retry_after_s")
#: What presence does not say: it is as it was when the instance was asked last.
_ASKED = ("mesh.faults", "mesh.plugins.")

_Key: TypeAlias = tuple[str, str]


def difference(
    before: dict[Any, dict[str, Any]], after: dict[Any, dict[str, Any]]
) -> list[tuple[str, dict[str, Any]]]:
    """What changed between two sets of records, as (event, record): ``added``, ``changed`` (the record then says
    which ``fields``) or ``removed``. Load, age and what counts down change always, and are no change."""
    events: list[tuple[str, dict[str, Any]]] = []
    for key, record in after.items():
        old = before.get(key)
        if old is None:
            events.append(("added", record))
            continue
        fields = [name for name in record if name not in _VOLATILE and record[name] != old.get(name)]
        if fields:
            events.append(("changed", {**record, "fields": fields}))
    events += [("removed", record) for key, record in before.items() if key not in after]
    return events


def as_info(instance: Instance, known: InfoReply | None) -> InfoReply:
    """A registry's instance as if it had just answered ``$SRV.INFO``; the schemas come from when it last did."""
    metadata = {
        **instance.labels,
        "mesh.wire": "1",
        "mesh.namespace": instance.namespace,
        "mesh.instance": instance.name,
        "mesh.state": "suspect" if instance.health is Health.SUSPECT else instance.state.value,
        "mesh.started": instance.started,
        "mesh.in_flight": str(instance.load.in_flight),
        "mesh.limit": str(instance.load.limit),
    }
    if instance.load.full:
        metadata["mesh.full"] = "true"
    if known is not None:
        metadata |= {key: text for key, text in known.metadata.items() if key.startswith(_ASKED)}
        return msgspec.structs.replace(known, version=instance.version, metadata=metadata)
    subjects = Subjects(instance.namespace)
    endpoints = tuple(
        EndpointReply(
            name=each.name,
            subject=each.subject or subjects.rpc(instance.service, each.name, "{caller}"),
            queue_group="q",
            metadata={
                "mesh.idempotent": "true" if each.idempotent else "false",
                "mesh.concurrency": str(each.concurrency),
                "mesh.schema.hash": each.schema,
                **({} if each.timeout_ms is None else {"mesh.timeout_ms": str(each.timeout_ms)}),
            },
        )
        for each in instance.endpoints
    )
    return InfoReply(
        name=instance.service,
        id=instance.id,
        version=instance.version,
        description="",
        metadata=metadata,
        endpoints=endpoints,
        omitted=0,
    )


class Live:
    """The instances of one namespace (of all where ``namespace`` is ``None``), and everything outside the mesh.

    ``ask`` brings everybody's answer to ``$SRV.INFO``. ``reasons`` says why instances that are gone are gone.
    """

    def __init__(
        self, mesh: Mesh, namespace: str | None, ask: Callable[[], Awaitable[list[InfoReply]]]
    ) -> None:
        self.reasons: dict[str, str] = {}
        #: That of this connection.
        self.namespace = mesh.namespace
        self._mesh = mesh
        self._namespace = namespace
        self._ask = ask
        self._changed = anyio.Event()
        self._observers: dict[str, Observer] = {}
        self._known: dict[_Key, InfoReply] = {}
        self._foreign: dict[_Key, tuple[InfoReply, int]] = {}
        self._ask_at = 0.0
        if namespace is not None:
            self._observe(namespace)

    async def refresh(self) -> None:
        """Ask everybody now."""
        self._ask_at = anyio.current_time() + ASK_EVERY_S
        answers = {(info.name, info.id): info for info in await self._ask()}
        now = SYSTEM_CLOCK.monotonic()
        foreign: dict[_Key, InfoReply] = {}
        for key, info in answers.items():
            announcement = announcement_of(info)
            if announcement is None:
                foreign[key] = info
            elif self._namespace in (None, announcement.namespace):
                registry = self._observe(announcement.namespace)
                if registry is not None:
                    self._note(registry.apply(announcement, now))
        members = {(each.service, each.id) for each in self._members()}
        self._known = {key: info for key, info in {**self._known, **answers}.items() if key in members}
        missing = {key: (i, missed + 1) for key, (i, missed) in self._foreign.items() if key not in foreign}
        self._foreign = {key: (info, 0) for key, info in foreign.items()}
        self._foreign |= {key: pair for key, pair in missing.items() if pair[1] < _MISSES}

    async def follow(self) -> None:
        """Ask again now and then, as long as the connection is there; runs until cancelled."""
        while True:
            await anyio.sleep(max(0.05, min(_SOON_S, self._ask_at - anyio.current_time())))
            if anyio.current_time() < self._ask_at:
                continue
            try:
                await self.refresh()
            except DisconnectedError:
                self._ask_at = anyio.current_time() + _SOON_S
            self._rouse()

    async def change(self, within_s: float) -> None:
        """Return when something happened, or after ``within_s`` seconds at the latest."""
        with anyio.move_on_after(within_s):
            await self._changed.wait()
        self._changed = anyio.Event()
        now = SYSTEM_CLOCK.monotonic()
        for observer in self._observers.values():
            self._note(observer.registry.tick(now))

    def infos(self) -> list[InfoReply]:
        """Everything that is there."""
        found = [as_info(each, self._known.get((each.service, each.id))) for each in self._members()]
        return found + [info for info, _ in self._foreign.values()]

    def _members(self) -> list[Instance]:
        return [each for observer in self._observers.values() for each in observer.registry.instances()]

    def _observe(self, namespace: str) -> Registry | None:
        observer = self._observers.get(namespace)
        if observer is None:
            if len(self._observers) >= _MAX_NAMESPACES:
                return None
            client = self._mesh.client
            observer = self._observers[namespace] = Observer(
                subjects=Subjects(namespace),
                transport=client.transport,
                mux=client.mux,
                clock=SYSTEM_CLOCK,
                on_change=lambda change: self._note([change]),
            )
        return observer.registry

    def _note(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.kind is ChangeKind.GONE and change.reason is not None:
                if len(self.reasons) >= _MAX_REASONS:
                    self.reasons.pop(next(iter(self.reasons)))
                self.reasons[change.instance.id] = change.reason.value
            elif change.kind is ChangeKind.JOINED:
                self._ask_at = min(self._ask_at, anyio.current_time() + _SOON_S)
        if changes:
            self._rouse()

    def _rouse(self) -> None:
        self._changed.set()
