"""Watches what is promised: listens to statistics, holds alarms against them, tells of them where nobody else does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio

from nats_mesh import Mesh
from nats_mesh.clock import SYSTEM_CLOCK, Clock, rfc3339
from nats_mesh.errors import CodecError
from nats_mesh.policy.policy_set import PolicySet
from nats_mesh.rollout import Book
from nats_mesh.telemetry.alert_messages import (
    Alert,
    AlertKey,
    Standing,
    brief,
    decode_standing,
    encode_standing,
)
from nats_mesh.telemetry.alerts import AlertBook, Turn
from nats_mesh.telemetry.duty import RENEW_S, Duty
from nats_mesh.telemetry.ended import EndedCalls
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.leasing import hold_lease
from nats_mesh.telemetry.slo import promises
from nats_mesh.telemetry.stats_messages import decode_stats
from nats_mesh.wire.kv import KvAbsentError, KvError
from nats_mesh.wire.subjects import ALL
from nats_mesh.wire.vouching import member_of
from nats_mesh_cli.output import counted
from nats_mesh_cli.promised import DUTY

__all__ = ["Watcher", "watches"]

log = logging.getLogger("nats_mesh.alerts")

#: How often alarms are looked at (seconds).
TICK_S: Final = 1.0
#: Who did not look for so long (seconds) has not seen what happened meanwhile.
_GAP_S: Final = 30.0
_NO_STORE: Final = "there is no store to agree in (JetStream): whoever watches tells of alerts, not one alone"


def watches(count: int, namespace: str) -> str:
    """How many promises are watched, for people."""
    return f"watches {counted(count, 'promise')} in namespace {namespace}"


class Watcher:
    """Watches over the connection of ``mesh``. ``look_on`` hears of every change, ``say`` of what a person should know.

    ``ignored`` counts messages that were not believed, or could not be read.
    """

    def __init__(
        self,
        mesh: Mesh,
        look_on: Callable[[Turn, str], None],
        say: Callable[[str], None],
        *,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        client = mesh.client
        self.ignored = 0
        self.book = AlertBook()
        self.counts = EndedCalls(clock.monotonic())
        self.duty = Duty(DUTY, mesh.namespace, transport=client.transport, mux=client.mux, clock=clock)
        self._mesh = mesh
        self._look_on = look_on
        self._say = say
        self._clock = clock
        self._policies: PolicySet | None = None
        #: How many promises there are, as far as people know.
        self._watched = len(promises(client.outbound.policies))
        self._looked = clock.monotonic()
        self._away = False
        #: Whether nobody can agree on who tells.
        self._alone = False
        self._complained = ""
        #: The level of each alert that was told last, by whoever did.
        self._told: dict[AlertKey, Alert] = {}
        self._last: dict[AlertKey, Turn] = {}

    @property
    def tells(self) -> bool:
        """Whether this watcher is the one whose word goes out."""
        return self._alone or self.duty.held

    async def run(self) -> None:
        """Watch until cancelled; what is known is then left for whoever goes on."""
        client = self._mesh.client
        transport = client.transport
        subscription = transport.subscribe(client.subjects.telemetry_of("stats"), self._on_stats)
        transport.add_listener(self)
        want = client.subjects.want("stats", ALL, self._mesh.name)
        try:
            await transport.fence()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: hold_lease(want, transport=transport, mux=client.mux))
                tasks.start_soon(self._agree)
                while True:
                    await anyio.sleep(TICK_S)
                    self.tick()
        finally:
            transport.remove_listener(self)
            transport.unsubscribe(subscription)
            with anyio.move_on_after(2.0, shield=True):
                try:
                    await self.duty.release(self._standing())
                except KvError as error:
                    log.info("what is known could not be left for others: %s", error)

    def tick(self) -> None:
        """Look at what has ended since the last look."""
        now = self._clock.monotonic()
        current = self._mesh.client.outbound.policies
        if current is not self._policies:
            self._policies = current
            promised = promises(current)
            self._turned(self.book.follow(promised, now))
            if len(promised) != self._watched:
                self._watched = len(promised)
                self._say(watches(self._watched, self._mesh.namespace))
        elapsed, self._looked = now - self._looked, now
        if self._away or elapsed > _GAP_S:
            self.counts.skip(now)
            elapsed = 0.0
        self._turned(self.book.take(self.counts.take(now), now, elapsed))
        if self.tells:
            self._tell(now)

    def _turned(self, turns: list[Turn]) -> None:
        for turn in turns:
            self._last[turn.alert.key] = turn
            self._look_on(turn, rfc3339(self._clock.time()))

    def _tell(self, now: float) -> None:
        """Tell of every alert that is at another level than was told last."""
        alerts = {alert.key: alert for alert in self.book.alerts(now)}
        for key, alert in alerts.items():
            told = self._told.get(key)
            if alert.level != ("ok" if told is None else told.level):
                self._emit(alert, self._last.get(key))
        for key, told in self._told.items():
            if key not in alerts and told.level != "ok":
                self._emit(told, self._last.get(key), over=True)
        self._told = alerts
        self._last = {key: turn for key, turn in self._last.items() if key in alerts}

    def _emit(self, alert: Alert, last: Turn | None, *, over: bool = False) -> None:
        firing = alert.level != "ok" and not over
        kind = EventKind.ALERT_FIRING if firing else EventKind.ALERT_RESOLVED
        if last is not None and last.kind == kind:
            self._mesh.events.emit(kind, alert.service, last.detail, **last.numbers)
        elif firing:
            self._mesh.events.emit(kind, alert.service, f"{alert.level}: {brief(alert)} burns its budget")
        else:
            self._mesh.events.emit(kind, alert.service, f"{brief(alert)}: nothing to say any more")

    # -- agreeing on who tells ------------------------------------------------------------------------

    async def _agree(self) -> None:
        telling = False
        while True:
            try:
                held = await self.duty.turn(self._standing, self._taken)
                if held and not telling:
                    self._say("tells of alerts from now on: nobody else does")
                telling, self._alone, self._complained = held, False, ""
            except KvAbsentError:
                await self._make()
            except KvError as error:
                self._complain(f"nobody can agree on who tells of alerts: {error}")
            await anyio.sleep(RENEW_S)

    async def _make(self) -> None:
        client = self._mesh.client
        try:
            await Book(self._mesh.namespace, transport=client.transport, mux=client.mux).make()
        except KvAbsentError:
            self._alone = True
            self._complain(_NO_STORE)
        except KvError as error:
            self._complain(f"the store in which watchers agree cannot be made: {error}")

    def _complain(self, text: str) -> None:
        if text != self._complained:
            self._complained = text
            self._say(text)

    def _standing(self) -> bytes:
        client, now = self._mesh.client, self._clock.monotonic()
        return encode_standing(
            Standing(
                holder=f"{self._mesh.name}/{client.transport.connection}",
                at=rfc3339(self._clock.time()),
                alerts=self.book.alerts(now),
            )
        )

    def _taken(self, value: bytes) -> None:
        """Go on where the one before left off."""
        try:
            standing = decode_standing(value)
        except CodecError as error:
            log.warning("what was known before cannot be read: %s", error)
            return
        self.tick()  # what is promised is known from here on
        self._told = {alert.key: alert for alert in standing.alerts}
        self.book.adopt(standing.alerts, self._clock.monotonic())

    # -- listening ------------------------------------------------------------------------------------

    def _on_stats(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        whose = member_of(subject, reply, enforced=self._mesh.settings.enforced)
        if whose is None:
            self.ignored += 1
            return
        try:
            message = decode_stats(
                payload, service=whose[0], instance=whose[1], namespace=self._mesh.namespace
            )
        except CodecError:
            self.ignored += 1
            return
        self.counts.hear(message, self._clock.monotonic())

    def on_disconnect(self, reason: str) -> None:
        """Nothing is heard from here on."""
        self._away = True

    def on_reconnect(self) -> None:
        """What ended meanwhile is not taken for what ends now."""
        self.counts.skip(self._clock.monotonic())
        self._away = False

    def on_denied(self, operation: str, subject: str) -> None:
        """The server's permissions say no."""
        self._say(f"the server's permissions refuse {operation} on {subject}")

    def __repr__(self) -> str:
        return f"<Watcher of {len(self.book)} promises, {'tells' if self.tells else 'looks on'}>"
