"""The configurations of one namespace's services, for operators: the bucket ``mesh_config_<namespace>``."""

from __future__ import annotations

from nats_mesh.clock import SYSTEM_CLOCK, Clock
from nats_mesh.config.follower import DEFAULT_NAME
from nats_mesh.config.value import MAX_VALUE
from nats_mesh.policy.bus.ledger import Ledger
from nats_mesh.policy.bus.revisions import ConflictError, Revision
from nats_mesh.wire.kv import KvConflictError
from nats_mesh.wire.kv_log import Write
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["ConfigStore"]


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
        self._ledger = Ledger(
            "config",
            self.subjects.config_bucket,
            subjects=self.subjects,
            transport=transport,
            mux=mux,
            operator=operator,
            clock=clock,
            timeout_s=timeout_s,
        )
        self._log = self._ledger.log
        #: Why the last change is not in the audit; empty where it is.
        self.unrecorded = ""

    async def open(self, *, make: bool = True) -> None:
        """Make the bucket where there is none, and the audit's stream.

        With ``make=False`` an absent bucket is a :class:`~nats_mesh.wire.kv.KvAbsentError`.
        """
        await self._ledger.open(
            hints=self.subjects.config_hints,
            make=make,
            replicas=None,
            description="configurations of a mesh namespace",
        )

    async def services(self) -> list[str]:
        """The services that have a configuration."""
        page = await self._log.latest(timeout_s=self._ledger.timeout_s)
        return [message.key.partition(".")[0] for message in page.messages if message.value is not None]

    async def history(self, service: str) -> list[Revision]:
        """The revisions of a service's configuration that are kept, the oldest first."""
        return await self._ledger.history(f"{service}.{DEFAULT_NAME}")

    async def write(
        self,
        service: str,
        value: bytes | None,
        *,
        expected: int,
        message: str = "",
        back_to: int | None = None,
    ) -> int:
        """Store ``value`` (``None``: delete it) where revision ``expected`` stands (0: nothing); the new revision.
        ``back_to``: it puts back what stood there at that revision (0: nothing did).

        :class:`~nats_mesh.policy.bus.revisions.ConflictError` where another one does.
        """
        if value is not None and not 0 < len(value) <= MAX_VALUE:
            raise ValueError(f"a configuration has 1 to {MAX_VALUE} bytes, not {len(value)}")
        key = f"{service}.{DEFAULT_NAME}"
        write = Write(key, value, expected)
        change, lines = self._ledger.said(message, back_to=back_to)
        try:
            revision = await self._ledger.write([write], lines)
        except KvConflictError as error:
            found = await self.history(service)
            raise ConflictError(key, expected, found[-1] if found else None) from error
        self.unrecorded = await self._ledger.record([write], {key: revision}, change=change, message=message)
        return revision

    def __repr__(self) -> str:
        return f"<ConfigStore {self._log.name}>"
