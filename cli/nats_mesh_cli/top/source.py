"""Everything that ``top`` knows, kept up to date: what the mesh tells, the policies, live calls while they show."""

from __future__ import annotations

import anyio
import anyio.abc
from msgspec.structs import replace

from nats_mesh import CallError, Mesh
from nats_mesh.core.presence import incarnation
from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh.telemetry.watching import MeshView
from nats_mesh_cli.heard import KNOWN_S
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out
from nats_mesh_cli.policy_board import Board, Reader
from nats_mesh_cli.promised import PromisedReader
from nats_mesh_cli.silent_view import silent_now, with_silent
from nats_mesh_cli.silent_watch import SilentWatch
from nats_mesh_cli.top.asking import Tap, policy_lines
from nats_mesh_cli.top.comings import Comings
from nats_mesh_cli.top.model import Data, PolicyLine

__all__ = ["Source"]


class Source:
    """What there is to see of an open ``mesh``, as long as ``view`` is."""

    def __init__(self, mesh: Mesh, view: MeshView, options: Options, out: Out) -> None:
        self.away = ""
        self.silence = SilentWatch(mesh, options, out, told=False)
        self.tap = Tap(mesh)
        self._mesh = mesh
        self._view = view
        self._board = Board()
        self._reader = Reader(mesh, self._board)
        self._policies: tuple[PolicyLine, ...] = ()
        self._read: object = None
        self._promised = PromisedReader(mesh)
        self._tapping: anyio.CancelScope | None = None
        self._comings = Comings(mesh.namespace)
        self._began: float | None = None
        #: Since when it is listened without a break, by the snapshots' clock.
        self._since: float | None = None
        self._looked = -1.0
        mesh.client.transport.add_listener(self)

    def data(self) -> Data:
        """Everything as it is now."""
        heard = self._view.snapshot()
        silent = silent_now(heard, self.silence.found)
        mesh = self._told(with_silent(heard, silent))
        board = self._board
        if board.revisions is not self._read:
            self._read, self._policies = board.revisions, policy_lines(board.revisions)
        return Data(
            mesh=mesh,
            away=self.away,
            head=board.head_with(mesh.policies.head),
            store=board.problem,
            policies=self._policies,
            calls=self.tap.take(),
            tapped=self.tap.told,
            settled=self._settled(mesh),
            promised=self._promised.now(),
            silent=silent,
        )

    def _settled(self, mesh: Snapshot) -> bool:
        """Whether whoever was not heard by now is not there."""
        if not mesh.connected:
            self._since = None
            return False
        if self._since is None:
            self._since = mesh.at
        return mesh.at - self._since > KNOWN_S

    def _told(self, mesh: Snapshot) -> Snapshot:
        """The same without this observer itself, and with the events that nobody tells of."""
        own = self._mesh.client.transport.connection
        mesh = replace(mesh, members=tuple([each for each in mesh.members if each.id != own]))
        if mesh.at != self._looked:
            self._began = mesh.at if self._began is None else self._began
            self._looked = mesh.at
            # Whoever was there from the beginning is found out within the first seconds.
            self._comings.take(mesh.members, mesh.wall_s, sure=mesh.at - self._began > KNOWN_S)
        comings = self._comings.events
        if not comings:
            return mesh
        events = sorted([*mesh.events, *comings], key=lambda each: incarnation(each.at))
        return replace(mesh, events=tuple(events))

    async def ready(self) -> None:
        """Read the policies for the first time, and how what is promised stands."""
        await self._reader.read()
        await self._promised.read()

    async def follow(self) -> None:
        """Read the policies again now and then, until cancelled."""
        while True:
            await self._reader.pause()
            await self._reader.read()

    async def watch_promises(self) -> None:
        """Read how what is promised stands now and then, until cancelled."""
        await self._promised.follow()

    async def watch_silence(self) -> None:
        """Find out who is silent now and then, until cancelled."""
        await self.silence.follow()

    async def watch_calls(self) -> None:
        """Have instances tell of their calls until cancelled."""
        with anyio.CancelScope() as scope:
            self._tapping = scope
            try:
                await self.tap.run()
            except CallError:
                pass  # the bus is away: with the next look it is tried again
            finally:
                self._tapping = None

    @property
    def tapping(self) -> bool:
        """Whether instances tell of their calls now."""
        return self._tapping is not None

    def leave_calls(self) -> None:
        """Hear of no more calls; what was heard stays."""
        if self._tapping is not None:
            self._tapping.cancel()

    # -- the connection ---------------------------------------------------------------------------------

    def on_disconnect(self, reason: str) -> None:
        """The bus is away: the banner says why."""
        self.away = reason

    def on_reconnect(self) -> None:
        """The bus is back; what was missed is asked for."""
        self.away = ""
        self._board.doubt()

    def on_denied(self, operation: str, subject: str) -> None:
        """What may not be seen stays empty; tapping says so by showing nothing."""
