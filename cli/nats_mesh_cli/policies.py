"""Policies for the commands that look: which hold here, and what they are about."""

from __future__ import annotations

from msgspec import UNSET

from nats_mesh import Mesh
from nats_mesh.core.replica import Record as Stored
from nats_mesh.model import is_name
from nats_mesh.policy import Policy, PolicySet, load_folder
from nats_mesh.policy.bus.documents import Builder
from nats_mesh.policy.bus.revisions import NoEpochError, Snapshot
from nats_mesh.policy.bus.store import PolicyStore
from nats_mesh.wire.kv import KvError
from nats_mesh.wire.subjects import QUEUE, Subjects
from nats_mesh_cli.catalog import MESH
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Record

__all__ = [
    "about",
    "endpoints_named",
    "live_policies",
    "policies_of",
    "read_set",
    "services_named",
    "target_of",
    "unheard",
]


def policies_of(options: Options) -> tuple[PolicySet, str | None]:
    """The policies of ``--policies`` or ``MESH_POLICIES``, and their folder; without one, none.

    :class:`nats_mesh.PolicyError` where a file has a mistake.
    """
    settings = options.settings()
    if settings.policies is None:
        return PolicySet.empty(namespace=settings.namespace), None
    return load_folder(settings.policies, namespace=settings.namespace), settings.policies


async def live_policies(options: Options, mesh: Mesh) -> tuple[PolicySet, str | None]:
    """The policies that hold, and where they come from: ``--policies`` or ``MESH_POLICIES``, else the store on the bus,
    as its followers read it (`bus, revision 42`); without any, none."""
    policies, folder = policies_of(options)
    if folder is not None:
        return policies, folder
    client = mesh.client
    store = PolicyStore(mesh.namespace, transport=client.transport, mux=client.mux)
    try:
        await store.open(make=False)
        snapshot = await store.snapshot()
    except (
        KvError,
        NoEpochError,
    ):  # no JetStream, no bucket, or no right to read it: nobody here follows one
        return policies, None
    return read_set(snapshot, mesh.namespace), f"bus, revision {snapshot.sequence}"


def read_set(snapshot: Snapshot, namespace: str) -> PolicySet:
    """The set of what stood in the store, without what no follower would take."""
    records = {
        key: Stored(each.sequence, key, each.value, each.time, "", True, each.change, len(each.value or b""))
        for key, each in snapshot.policies.items()
    }
    made = Builder(namespace).build(records, snapshot.epoch).policies
    return PolicySet.empty(namespace=namespace) if made is None else made


def target_of(policy: Policy) -> tuple[str, tuple[str, ...]]:
    """The service and the endpoints that a policy is about; empty for all of them."""
    target = policy.target
    if target is UNSET or target.service is UNSET:
        return "", ()
    return target.service, () if target.endpoints is UNSET else tuple(target.endpoints)


def about(policies: PolicySet, service: str, endpoint: str = "") -> list[str]:
    """The policies that name ``service``, or that endpoint of it, each with its place."""
    found = []
    for policy in policies.policies:
        named, endpoints = target_of(policy)
        if named == service and (not endpoint or endpoint in endpoints):
            found.append(f"{policy.name} ({policy.place})")
    return found


def endpoints_named(policies: PolicySet, service: str) -> list[str]:
    """The endpoints of ``service`` that policies name."""
    targets = map(target_of, policies.policies)
    return sorted({name for named, endpoints in targets if named == service for name in endpoints})


def services_named(policies: PolicySet) -> list[str]:
    """The services that policies name."""
    return sorted({target_of(policy)[0] for policy in policies.policies} - {""})


def unheard(service: str, name: str, namespace: str) -> Record:
    """An endpoint that nobody serves now, as ``catalog.endpoint_records`` would tell of it; `*` for any other."""
    subjects = Subjects(namespace)
    return {
        "endpoint": f"{service}.{name}",
        "service": service,
        "name": name,
        "namespace": namespace,
        "kind": MESH,
        "versions": [],
        "instances": 0,
        "timeout_ms": None,
        "idempotent": None,
        "concurrency": None,
        "concurrency_source": "",
        "request": None,
        "response": None,
        "subject": subjects.rpc(service, name, "{caller}") if is_name(name) else "",
        "queue": QUEUE,
        "schema_hash": "",
        "schemas": [],
        "schema_omitted": "",
        "request_schema": None,
        "response_schema": None,
    }
