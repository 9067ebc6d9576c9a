"""How a rollout begins: everything that could stand in its way is found before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import UNSET

from nats_mesh.clock import SYSTEM_CLOCK, Clock, rfc3339
from nats_mesh.errors import MeshError
from nats_mesh.mesh import Mesh
from nats_mesh.policy.bus.checking import check_change
from nats_mesh.policy.bus.documents import key_of, read_document
from nats_mesh.policy.bus.plan import Document
from nats_mesh.policy.bus.revisions import Change, Snapshot
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.schema import Route
from nats_mesh.rollout.book import Book, Entry
from nats_mesh.rollout.record import Record, rules_of, sticky_of
from nats_mesh.rollout.route import InTheWayError, route_with
from nats_mesh.wire.headers import one_line
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.kv import KvConflictError

__all__ = ["NotStartedError", "Started", "Starting"]


class NotStartedError(MeshError):
    """The rollout cannot begin; nothing was started."""


class Started(NamedTuple):
    """A rollout that waits for somebody to carry it out. ``replaced`` are older ones of the service whose policies gave
    way to it, ``warnings`` what is wrong with the policies that stand there already."""

    entry: Entry
    replaced: tuple[str, ...]
    warnings: tuple[str, ...]


class Starting:
    """Starts rollouts over the connection of ``mesh``, for the operator that ``by`` names."""

    def __init__(self, mesh: Mesh, *, by: str, clock: Clock = SYSTEM_CLOCK, timeout_s: float = 5.0) -> None:
        client = mesh.client
        self.book = Book(mesh.namespace, transport=client.transport, mux=client.mux, clock=clock)
        self.store = PolicyStore(
            mesh.namespace, transport=client.transport, mux=client.mux, operator=by, timeout_s=timeout_s
        )
        self._namespace = mesh.namespace
        self._by = by
        self._clock = clock

    async def start(
        self, given: Document | str, *, beside: Mapping[str, Document] | None = None, message: str = ""
    ) -> Started:
        """Start what a `Rollout` says: a document, which is stored, or that which is stored for a service of this name.

        :class:`PolicyError` where the document and the others cannot hold together, :class:`NotStartedError` where a
        rollout of the service is under way or another route would be in its way. ``beside`` are policies, by their
        keys, that must stand in the store already.
        """
        await self.store.open(make=False)
        await self.book.make()
        snapshot = await self.store.snapshot()
        for key, wanted in (beside or {}).items():
            stands = snapshot.policies.get(key)
            if stands is None or stands.value != wanted.value:
                how = "not in the store" if stands is None else "otherwise in the store"
                raise NotStartedError(f"{wanted.policy.name} is {how}: 'policy apply' comes first")
        document = given if isinstance(given, Document) else self._stored(snapshot, given)
        rollout = document.policy.document
        if not isinstance(rollout, Rollout):
            raise NotStartedError(f"{document.policy.name} is no Rollout")
        target = rollout.spec.target.service
        service = "" if target is UNSET else target
        entry = await self.book.read(service)
        if entry is not None and not entry.record.progress.phase.ended:
            at = entry.record.progress
            raise NotStartedError(
                f"a rollout of {service} is under way ({entry.record.rollout}: {at.phase}, {at.weight}%): "
                "abort it first"
            )
        own = key_of(document.policy)
        changes: dict[str, Document | None] = {own: document}
        route = self._route(snapshot, rollout, service, own, changes)
        checked = check_change(snapshot, changes, namespace=self._namespace)
        replaced = tuple(key for key, wanted in changes.items() if wanted is None)
        before = snapshot.policies.get(own)
        if before is None or before.value != document.value or replaced:
            puts = [Change(own, document.value, snapshot.expected.get(own, 0))]
            puts += [Change(key, None, snapshot.expected.get(key, 0)) for key in replaced]
            await self.store.apply(puts, message=message or "rollout start", one_by_one=True)
        record = Record(
            service=service,
            rollout=rollout.metadata.name,
            run=new_id(),
            rules=rules_of(rollout.spec),
            route=route,
            revision=snapshot.expected.get(route, 0),
            sticky=sticky_of(rollout.spec),
            started=rfc3339(self._clock.time()),
            started_by=one_line(self._by, 200),
        )
        try:
            revision = await self.book.write(record, 0 if entry is None else entry.revision)
        except KvConflictError as error:
            raise NotStartedError(f"somebody else has just started a rollout of {service}") from error
        warnings = tuple(str(each) for each in checked.warnings)
        return Started(Entry(record, revision), replaced, warnings)

    def _stored(self, snapshot: Snapshot, name: str) -> Document:
        """The `Rollout` in the store that is about the service ``name``, or is called so."""
        for found in self._rollouts(snapshot):
            document = found.policy.document
            assert isinstance(document, Rollout)
            if name in (document.spec.target.service, document.metadata.name):
                return found
        raise NotStartedError(f"there is no file {name}, and no Rollout of such a service in the store")

    def _rollouts(self, snapshot: Snapshot) -> list[Document]:
        return [self._read(snapshot, key) for key in snapshot.policies if key.startswith("Rollout.")]

    def _read(self, snapshot: Snapshot, key: str) -> Document:
        found = snapshot.policies[key]
        assert found.value is not None
        policy = read_document(key, found.value, found.sequence, namespace=self._namespace)
        return Document(policy=policy, value=found.value)

    def _route(
        self,
        snapshot: Snapshot,
        rollout: Rollout,
        service: str,
        own: str,
        changes: dict[str, Document | None],
    ) -> str:
        """The key of the route to change. Adds to ``changes`` how that begins, and that older rollouts give way."""
        for each in self._rollouts(snapshot):
            key = key_of(each.policy)
            older = each.policy.document
            if isinstance(older, Rollout) and older.spec.target.service == service and key != own:
                changes[key] = None
        key = ""
        for name in snapshot.policies:
            if not name.startswith("Route."):
                continue
            policy = self._read(snapshot, name).policy
            route, target = policy.document, policy.target
            if not isinstance(route, Route) or target is UNSET or target.service != service:
                continue
            if target.endpoints is UNSET:
                key = name
            elif any(rule.split is not UNSET or rule.redirect is not UNSET for rule in route.spec.rules):
                raise InTheWayError(
                    f"{policy.name} says where calls of {service}.{', '.join(target.endpoints)} go: they would not "
                    "take part; take that out first"
                )
        if not key:
            key = f"Route.{rollout.metadata.name}"
            if key in snapshot.policies:
                raise NotStartedError(
                    f"Route/{rollout.metadata.name} is there and about something else: call the rollout otherwise"
                )
        before = snapshot.policies.get(key)
        value = route_with(
            None if before is None else before.value,
            name=key.partition(".")[2],
            service=service,
            old=rollout.spec.from_,
            new=rollout.spec.to,
            weight=0,
            sticky=sticky_of(rollout.spec),
        )
        policy = read_document(key, value, snapshot.sequence, namespace=self._namespace)
        changes[key] = Document(policy=policy, value=value)
        return key
