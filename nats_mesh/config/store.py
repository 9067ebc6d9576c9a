"""The configurations of one namespace's services, for operators: the bucket ``mesh_config_<namespace>``."""

from __future__ import annotations

from nats_mesh.audit.changes import ChangeKeeper
from nats_mesh.audit.writing import Origin
from nats_mesh.clock import SYSTEM_CLOCK, Clock, rfc3339
from nats_mesh.config.follower import DEFAULT_NAME
from nats_mesh.config.value import MAX_VALUE
from nats_mesh.policy.bus.bucket import make_bucket
from nats_mesh.policy.bus.revisions import ConflictError, Revision, revision_of
from nats_mesh.wire import headers as h
from nats_mesh.wire.ids import new_id
from nats_mesh.wire.kv import KvConflictError
from nats_mesh.wire.kv_log import KvLog, Message, Write
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["ConfigStore"]

_MAX_MESSAGE = 1024


class ConfigStore:
    """Reads and writes configurations. Every method raises :class:`~nats_mesh.wire.kv.KvError` where the store does not
    do it."""

    def __init__(
        self,
        namespace: str,
        *,
        transport: Transport,
        mux: ReplyMux,
        operator: str,
        clock: Clock = SYSTEM_CLOCK,
        timeout_s: float = 5.0,
    ) -> None:
        self.subjects = Subjects(namespace)
        self._log = KvLog(self.subjects.config_bucket, transport=transport, mux=mux)
        self._audit = ChangeKeeper(
            self.subjects, self._log, transport=transport, mux=mux, clock=clock, timeout_s=timeout_s
        )
        self._transport = transport
        #: Why the last change is not in the audit; empty where it is.
        self.unrecorded = ""
        self._operator = operator
        self._clock = clock
        self._timeout_s = timeout_s

    async def open(self, *, make: bool = True) -> None:
        """Make the bucket where there is none, and the audit's stream.

        With ``make=False`` an absent bucket is a :class:`~nats_mesh.wire.kv.KvAbsentError`.
        """
        bucket = await make_bucket(
            self._log,
            hints=self.subjects.config_hints,
            servers=self._transport.known_servers,
            make=make,
            replicas=None,
            timeout_s=self._timeout_s,
            description="configurations of a mesh namespace",
        )
        if make:
            await self._audit.open(replicas=bucket.replicas)

    async def history(self, service: str) -> list[Revision]:
        """The revisions of a service's configuration that are kept, the oldest first."""
        key, found = f"{service}.{DEFAULT_NAME}", list[Message]()
        while True:
            after = found[-1].sequence + 1 if found else 1
            page = await self._log.after(after, key=key, timeout_s=self._timeout_s)
            found += page.messages
            if not page.more or not page.messages:
                return [revision_of(message) for message in found]

    async def write(self, service: str, value: bytes | None, *, expected: int, message: str = "") -> int:
        """Store ``value`` (``None``: delete it) where revision ``expected`` stands (0: nothing); the new revision.

        :class:`~nats_mesh.policy.bus.revisions.ConflictError` where another one does.
        """
        if value is not None and not 0 < len(value) <= MAX_VALUE:
            raise ValueError(f"a configuration has 1 to {MAX_VALUE} bytes, not {len(value)}")
        key = f"{service}.{DEFAULT_NAME}"
        said = h.one_line(message, _MAX_MESSAGE) if message else ""
        change, write = new_id(), Write(key, value, expected)
        lines = (
            f"Mesh-Operator: {h.one_line(self._operator, 128)}\r\nMesh-Message: {said}\r\n"
            f"Mesh-Time: {rfc3339(self._clock.time())}\r\nMesh-Change: {change}\r\n"
        )
        try:
            revision = await self._log.write([write], lines, batch="", timeout_s=self._timeout_s)
        except KvConflictError as error:
            found = await self.history(service)
            raise ConflictError(key, expected, found[-1] if found else None) from error
        origin = Origin("config", self._operator, message, change)
        self.unrecorded = await self._audit.record(origin, [write], {key: revision})
        return revision

    def __repr__(self) -> str:
        return f"<ConfigStore {self._log.name}>"
