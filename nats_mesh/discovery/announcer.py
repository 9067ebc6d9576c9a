"""An instance tells the mesh that it is there: join, beats, changes, leave."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from nats_mesh.audit.signs import SignKeeper
from nats_mesh.core.presence import (
    BEAT_REJECTIONS,
    Announcement,
    EndpointInfo,
    Kind,
    Load,
    Standing,
    State,
)
from nats_mesh.discovery.messages import (
    beat_interval_s,
    encode,
    nominal_interval_s,
    rfc3339,
    standing_metadata,
)
from nats_mesh.errors import CallError, ConfigError, DisconnectedError
from nats_mesh.wire.loop import Timer, call_later
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import Subjects
from nats_mesh.wire.transport import Transport

__all__ = ["Announcer"]

log = logging.getLogger("nats_mesh.presence")


class Announcer:
    """Publishes the presence of one instance. ``load``, ``peers`` (how many instances of the service are
    known) and ``standing`` (with the policies it follows) are asked at each announcement; ``signs`` writes down
    some of them for the audit. Timers only: a beat costs no task."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        display_name: str,
        version: str,
        labels: dict[str, str],
        endpoints: tuple[EndpointInfo, ...],
        subjects: Subjects,
        transport: Transport,
        mux: ReplyMux,
        rng: random.Random,
        started_wall_s: float,
        load: Callable[[], Load],
        peers: Callable[[], int],
        standing: Callable[[], Standing] = Standing,
        signs: SignKeeper | None = None,
    ) -> None:
        self.state = State.JOINING
        self.started = rfc3339(started_wall_s)
        self._service = service
        self._instance = instance
        self._name = display_name
        self._version = version
        self._labels = labels
        self._endpoints = endpoints
        self._namespace = subjects.namespace
        self._subject = subjects.presence(service, instance)
        self._transport = transport
        self._mux = mux
        self._rng = rng
        self._load = load
        self._peers = peers
        self._standing = standing
        self._signs = signs
        self._seq = 0
        self._timer: Timer | None = None

    def join(self) -> None:
        """Announce the instance as ready, and go on beating."""
        self.state = State.READY
        self._say(Kind.JOIN)
        self._schedule()

    def change(self, state: State) -> None:
        """Announce another state at once."""
        self.state = state
        self._say(Kind.CHANGE)

    def again(self) -> None:
        """Announce everything anew, as after a reconnect, when observers may have missed something."""
        self._say(Kind.CHANGE)

    def report(self) -> None:
        """Announce the load at once: a beat out of turn, for whoever balances by it."""
        self._say(Kind.BEAT)

    def describe(self, endpoints: tuple[EndpointInfo, ...]) -> None:
        """Announce that the endpoints are others from now on."""
        self._endpoints = endpoints
        if self.state is not State.JOINING:
            self._say(Kind.CHANGE)

    def metadata(self) -> dict[str, str]:
        """The same facts for whoever asks instead of listening (``$SRV.PING`` and ``INFO``)."""
        return {
            "mesh.instance": self._name,
            "mesh.state": self.state.value,
            "mesh.started": self.started,
            "mesh.seq": str(self._seq),
            "mesh.interval_s": repr(nominal_interval_s(self._peers())),
            **standing_metadata(self._standing()),
        }

    def leave(self) -> None:
        """Announce that no call shall come any more; the beats end. Again is fine, as after a reconnect."""
        self.stop()
        self.state = State.DRAINING
        self._say(Kind.LEAVE)

    def stop(self) -> None:
        """End the beats and say nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        delay_s = beat_interval_s(self._peers(), self._rng.random())
        self._timer = call_later(delay_s, self._beat)

    def _beat(self) -> None:
        self._schedule()  # first: whatever one beat meets, the next one comes
        self._say(Kind.BEAT)

    def _say(self, kind: Kind) -> None:
        self._seq += 1
        standing = self._standing()
        announcement = Announcement(
            type=kind,
            service=self._service,
            instance=self._instance,
            name=self._name,
            version=self._version,
            namespace=self._namespace,
            seq=self._seq,
            started=self.started,
            interval_s=nominal_interval_s(self._peers()),
            state=self.state,
            labels=self._labels,
            endpoints=self._endpoints if kind in (Kind.JOIN, Kind.CHANGE) else (),
            load=self._load(),
            revision=standing.revision,
            rejections=standing.rejections[:BEAT_REJECTIONS],
        )
        try:
            self._transport.publish(self._subject, encode(announcement), self._mux.one_way("presence"))
        except DisconnectedError:
            pass  # nobody hears it now; after the reconnect everything is announced anew
        except (
            CallError
        ) as error:  # too large for this server: presence without the endpoints is better than none
            if not announcement.endpoints:
                raise ConfigError(f"{self._service}: presence cannot be announced: {error.message}") from None
            log.warning("%s announces itself without its endpoints: %s", self._service, error.message)
            self._endpoints = ()
            self._say(kind)
            return
        if self._signs is not None:
            self._signs.say(announcement)
