"""One run of the demo: server, services, watch, load; started in this order, stopped in reverse, whatever happens."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from pathlib import Path

import anyio
import msgspec

from nats_mesh import Mesh, MeshError
from nats_mesh.core.members import Change
from nats_mesh.core.presence import State
from nats_mesh.settings import Settings
from nats_mesh.telemetry.events import Event
from nats_mesh.telemetry.kinds import EventKind
from nats_mesh.telemetry.span_store import SpanStore
from nats_mesh.testing import NatsServer
from nats_mesh.wire.kv import KvError
from nats_mesh_cli.demo.collect import edge_lines, instance_lines, service_lines
from nats_mesh_cli.demo.deeds import Before, Deeds, ended_from_outside, how_it_ended
from nats_mesh_cli.demo.events import Events
from nats_mesh_cli.demo.fleet import Fleet, ServiceProcess, child_environment
from nats_mesh_cli.demo.load import CALLER, Load
from nats_mesh_cli.demo.locate import DEFAULT, EXPECTED, Bookinfo, locate
from nats_mesh_cli.demo.logs import Logs
from nats_mesh_cli.demo.policies import AppliedNews
from nats_mesh_cli.demo.rows import edge_rows, service_rows
from nats_mesh_cli.demo.silences import pid_of
from nats_mesh_cli.demo.state import Mark, PagesLine, Phase, ViewState
from nats_mesh_cli.demo.summary import Summary
from nats_mesh_cli.demo.unless import unless
from nats_mesh_cli.demo.verdict import OWN, verdict
from nats_mesh_cli.demo.watch import BusWatch
from nats_mesh_cli.output import counted
from nats_mesh_cli.trouble import tells_of_trouble

__all__ = ["Options", "Session", "StartError"]

_SETTLE_TIMEOUT_S = 10.0
#: So many pages are asked for at most until every instance of `reviews` has answered one: a miss is no chance then.
_MAX_FIRST_PAGES = 500
#: A deed is noticed within so many seconds: the end of a process is looked for ten times a second.
_NOTICED_S = 0.5
_TREND_EVERY_S = 1.0
_TREND_KEPT = 30
_now = time.monotonic


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a person can choose. ``duration_s`` is the load's; ``None``: until told to stop."""

    rate_per_s: float = 50.0
    duration_s: float | None = None
    namespace: str = "default"
    start_timeout_s: float = 60.0
    #: Further variables of the services' environment.
    environ: dict[str, str] = {}
    #: The folder for what the services write.
    logs: str | None = None


class StartError(MeshError):
    """The demo could not be brought up; the message says which part of it and why."""


class Session:
    """Call :meth:`run` once; :meth:`view` may be asked at any time meanwhile."""

    def __init__(self, options: Options, events: Events) -> None:
        self._options = options
        self._events = events
        self._phase: Phase = "starting"
        self._url = ""
        self._load: Load | None = None
        self._mesh: Mesh | None = None
        self._watch: BusWatch | None = None
        self._fleet: Fleet | None = None
        self._began: float | None = None
        self._trends: dict[str, deque[float]] = {}
        self._trend_due = 0.0
        self._server_lost = ""
        #: What is done to it while the load lasts.
        self._deeds = Deeds(lambda: self._past[0])
        #: What had gone wrong a moment ago, and a moment before that.
        self._past = deque([Before()], maxlen=2)
        self._applied = AppliedNews(events, self._members, _now)
        #: Whether every instance lived to give its last figures: only then can sums agree.
        self._complete = False

    async def run(self, stop: anyio.Event) -> Summary | None:
        """Everything from the first process to the last; ``None`` where ``stop`` came before it was up.

        :class:`StartError`, or another :class:`MeshError`, where it cannot be brought up.
        """
        bookinfo = locate()
        logs = None
        if self._options.logs is not None:
            logs = Logs.open(Path(self._options.logs), DEFAULT, self._on_log_trouble)
        with contextlib.nullcontext() if logs is None else contextlib.closing(logs):
            return await self._run(bookinfo, logs, stop)

    async def _run(self, bookinfo: Bookinfo, logs: Logs | None, stop: anyio.Event) -> Summary | None:
        async with NatsServer(name="nats-mesh-demo") as server:
            self._url = server.url
            self._events.add(Mark.INFO, f"the server is {server.url} (export NATS_URL={server.url})")
            if logs is not None:
                self._events.add(Mark.INFO, f"what the services write goes to {logs.folder}/*.log")
            environ = child_environment(
                os.environ,
                url=server.url,
                namespace=self._options.namespace,
                python_path=bookinfo.python_path(os.environ.get("PYTHONPATH", "")),
            )
            environ |= self._options.environ
            settings = Settings(servers=(server.url,), namespace=self._options.namespace)
            async with Mesh(CALLER, settings=settings) as mesh:
                self._mesh = mesh
                watch = self._watch = BusWatch(mesh, self._on_presence, on_event=self._on_event)
                await mesh.client.transport.fence()
                await _keep_spans(mesh)
                async with Fleet(bookinfo, DEFAULT, environ, self._on_exit, self._on_stop, logs) as fleet:
                    self._fleet = fleet
                    load = self._load = Load(
                        mesh, rate_per_s=self._options.rate_per_s, on_trouble=self._on_trouble
                    )
                    problems = await self._measure(server, fleet, load, stop)
                watch.close()
                if problems is None:
                    if self._server_lost:
                        raise StartError(self._server_lost)
                    return None
                problems += [f"told to stop, {process.failure()}" for process in fleet.unruly]
                return verdict(
                    mesh=mesh,
                    watch=watch,
                    load=load,
                    deeds=self._deeds,
                    problems=problems,
                    complete=self._complete,
                )

    async def _measure(
        self, server: NatsServer, fleet: Fleet, load: Load, stop: anyio.Event
    ) -> list[str] | None:
        """From the first process to the last figure: what was wrong; ``None`` where it was never up."""
        watch = self._watch
        assert watch is not None  # made before the fleet
        failure: MeshError | None = None
        problems: list[str] | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_server, server, stop)
            tasks.start_soon(watch.run)
            tasks.start_soon(fleet.watch)
            tasks.start_soon(self._applied.run)
            tasks.start_soon(self._remember)
            try:
                await unless(stop, lambda: self._bring_up(watch, fleet, load))
                if not stop.is_set() or self._phase == "running":
                    self._began = _now()
                    await load.run(stop, self._options.duration_s)
                    self._phase = "stopping"
                    self._applied.tell(math.inf)
                    problems = await self._settle(watch, fleet)
            except MeshError as error:  # raised outside the group: callers want it, not a group of one
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return problems

    async def _bring_up(self, watch: BusWatch, fleet: Fleet, load: Load) -> None:
        """Wait until every service is there, then until each instance of `reviews` had a part in a page."""
        patience_s = self._options.start_timeout_s
        with anyio.move_on_after(patience_s) as patience:
            while absent := self._absent(watch):
                self._check_alive(fleet)
                await watch.news()
        if patience.cancelled_caught:
            raise StartError(f"not there after {patience_s:g} s: {', '.join(absent)}")
        wanted = {instance.id for instance in watch.registry.instances("reviews")}
        while not wanted <= load.reviewers:
            self._check_alive(fleet)
            if not await load.page() or load.calls >= _MAX_FIRST_PAGES:
                raise StartError(
                    f"{counted(load.calls, 'page was', 'pages were')} asked for, and {len(wanted - load.reviewers)} "
                    f"of {counted(len(wanted), 'instance')} of reviews had no part in any"
                )
        self._phase = "running"
        self._events.add(
            Mark.INFO, f"all {len(watch.registry)} instances answer; the load begins on {self._url}"
        )

    def _absent(self, watch: BusWatch) -> list[str]:
        ready = {(i.service, i.version) for i in watch.registry.instances() if i.state is State.READY}
        return [
            f"{name} {version}"
            for name, versions in EXPECTED.items()
            for version in versions
            if (name, version) not in ready
        ]

    async def _watch_server(self, server: NatsServer, stop: anyio.Event) -> None:
        """Without a server there is nothing to see any more."""
        status = await server.wait()
        end = server.logs(5) if status >= 0 else []  # who was killed has nothing to say about it
        self._server_lost = "\n  ".join([f"the embedded nats-server ended with status {status}", *end])
        self._events.add(Mark.ERROR, f"the embedded nats-server ended with status {status}")
        stop.set()

    def _check_alive(self, fleet: Fleet) -> None:
        if fleet.crashed:
            process = fleet.crashed[0]
            raise StartError("\n  ".join([process.failure(), *process.output]))

    async def _settle(self, watch: BusWatch, fleet: Fleet) -> list[str]:
        """Wait for everybody's last figures; whoever does not give them is a problem, and so is a crash."""
        problems = [
            process.failure() for process in fleet.crashed if not ended_from_outside(process.child.returncode)
        ]
        if self._server_lost:
            return [*problems, self._server_lost]
        silent = self._deeds.silences.lasting
        self._deeds.silences.over(_now())
        members = [
            (i.service, i.id)
            for i in watch.registry.instances()
            if (i.service, i.id) not in silent and fleet.is_running(pid_of(i)) is not False
        ]
        with anyio.move_on_after(_SETTLE_TIMEOUT_S) as patience:
            await watch.settled(members)
        self._complete = not fleet.crashed and not patience.cancelled_caught
        if patience.cancelled_caught:
            problems.append(f"not every instance gave its last figures within {_SETTLE_TIMEOUT_S:.0f} s")
        return [*problems, *self._deeds.hangs]

    # -- what happens meanwhile -------------------------------------------------------------------------

    async def _remember(self) -> None:
        """Keep what had gone wrong a moment ago: a deed is noticed after the first pages have failed of it."""
        while True:
            self._past.append(self._so_far())
            await anyio.sleep(_NOTICED_S)

    def _so_far(self) -> Before:
        """What has gone wrong by now."""
        load, watch = self._load, self._watch
        if load is None or watch is None:
            return Before()
        failing = [service for service, own in watch.own_calls(OWN).items() if own.errors]
        return Before(failed=load.failed, degraded=load.degraded, services=frozenset(failing))

    def _on_event(self, event: Event) -> None:
        done = self._phase == "running" and self._deeds.heard(event)
        if done and event.kind == EventKind.POLICY_APPLIED:
            self._applied.heard(event)
        elif done or tells_of_trouble(event.kind):
            self._events.told(event)

    def _members(self) -> frozenset[tuple[str, str]]:
        """Who follows policies as far as the demo knows: the instances, and whoever asks for the pages."""
        instances = [] if self._watch is None else self._watch.registry.instances()
        own = [] if self._mesh is None else [(CALLER, self._mesh.client.transport.connection)]
        return frozenset([*own, *((each.service, each.id) for each in instances)])

    def _on_presence(self, change: Change) -> None:
        self._events.presence(change)
        process = None if self._fleet is None else self._fleet.of(pid_of(change.instance))
        if self._phase == "running" and (process is None or process.child.poll() is None):
            stopped = None if process is None else process.stopped
            self._deeds.presence(change, _now(), stopped=stopped)

    def _on_stop(self, process: ServiceProcess, stopped: bool) -> None:
        if self._phase != "running" or self._watch is None:
            return
        pid = str(process.child.pid)
        if not stopped:
            self._deeds.silences.goes_on(pid, _now())
            self._events.add(Mark.CHANGE, f"{process.name} (pid {pid}) goes on", "process")
            return
        self._events.add(Mark.WARN, f"{process.name} (pid {pid}) was stopped by a signal", "process")
        for instance in self._watch.registry.instances():
            if pid_of(instance) == pid:
                self._deeds.stopped(instance, _now())

    def _on_exit(self, process: ServiceProcess) -> None:
        if self._phase == "running":
            self._deeds.ended(process, _now())
        if ended_from_outside(process.child.returncode):  # its last words are of something else
            self._events.add(Mark.LEAVE, how_it_ended(process), "process")
        else:
            self._events.add(Mark.ERROR, process.failure(), "process")
        if self._watch is not None:
            self._watch.wake()

    def _on_log_trouble(self, text: str) -> None:
        self._events.add(Mark.WARN, text, "log")

    def _on_trouble(self, text: str) -> None:
        self._events.add(Mark.ERROR, text, "page")

    def view(self) -> ViewState:
        """What there is to see now."""
        now = _now()
        load, watch, fleet = self._load, self._watch, self._fleet
        pages = PagesLine(asked_per_s=self._options.rate_per_s) if load is None else load.line
        state = ViewState(
            url=self._url,
            phase=self._phase,
            elapsed_s=0.0 if self._began is None else now - self._began,
            duration_s=self._options.duration_s,
            pages=pages,
            events=self._events.all,
        )
        if watch is None or fleet is None:
            return state
        snapshot = watch.snapshot()
        rows = service_rows(snapshot, {})
        if now >= self._trend_due:
            self._trend_due = now + _TREND_EVERY_S
            for row in rows:
                self._trends.setdefault(row.service, deque(maxlen=_TREND_KEPT)).append(row.rate_per_s)
        return msgspec.structs.replace(
            state,
            services=service_lines(rows, watch.registry.services(), EXPECTED, self._trends),
            edges=edge_lines(edge_rows(snapshot), EXPECTED),
            instances=instance_lines(watch.registry.instances(), watch.heard(), EXPECTED, fleet.is_running),
        )


async def _keep_spans(mesh: Mesh) -> None:
    """Have spans kept for minutes, so that `nats-mesh trace` beside the demo knows what was."""
    client = mesh.client
    with contextlib.suppress(KvError):  # everything else works without it
        await SpanStore(client.subjects, transport=client.transport, mux=client.mux).make()
