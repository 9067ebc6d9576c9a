"""The demo from its options to its exit code: with a live view where a person looks on, quietly elsewhere."""

from __future__ import annotations

import contextlib
import logging
import signal
import termios
from collections import Counter
from collections.abc import Callable, Iterator

import anyio

from nats_mesh import MeshError
from nats_mesh_cli.demo.events import Events, LogEvents
from nats_mesh_cli.demo.looking import look_closer
from nats_mesh_cli.demo.report import report, said_besides
from nats_mesh_cli.demo.screen import Screen, screen
from nats_mesh_cli.demo.session import Options, Session
from nats_mesh_cli.demo.state import Event, Mark
from nats_mesh_cli.demo.summary import Summary
from nats_mesh_cli.demo.view import render
from nats_mesh_cli.errors import FAILED, INTERRUPTED, OK
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Out

__all__ = ["MAX_TOLD", "Teller", "demo"]

_FRAME_S = 0.25
#: How many lines of one topic are told where nobody looks at a view.
MAX_TOLD = 100
_STOPPING = "stopping; Ctrl-C stops at once"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


async def demo(options: Options, out: Out, fmt: Format, *, live: bool) -> int:
    """Run the demo and print its summary; returns the exit code. ``live`` draws on the terminal meanwhile."""
    teller = None if live else Teller(out.note)
    events = Events(teller)
    session = Session(options, events)
    stop = anyio.Event()
    view = _View(session, events, stop, out, options.namespace) if live else None
    summary: Summary | None = None
    failure: MeshError | None = None
    with _logs_as_events(events, alone=live):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_obey_signals, stop, tasks.cancel_scope, out.note if view is None else view.note)
            if view is not None:
                tasks.start_soon(view.draw)
            try:
                summary = await session.run(stop)
            except MeshError as error:  # raised outside the group: callers want it, not a group of one
                failure = error
            tasks.cancel_scope.cancel()
    if teller is not None:
        teller.close()
    if failure is not None:
        raise failure
    if summary is None:
        out.note("stopped before there was anything to report")
        return INTERRUPTED
    text = report(summary, fmt, pretty=out.tty, color=out.color, room=out.columns)
    if fmt.structured:
        out.data(text)
    else:
        out.text(text)
    for text in summary.done:
        out.note(f"done to it: {text}")
    for text in said_besides(summary, fmt):
        out.note(f"came of that: {text}", "warn")
    for problem in summary.problems:
        out.note(f"error: {problem}", "bad")
    return OK if summary.ok else FAILED


async def _obey_signals(stop: anyio.Event, scope: anyio.CancelScope, note: Callable[[str], None]) -> None:
    """The first signal ends the load and asks for the summary, the second ends everything at once."""
    with anyio.open_signal_receiver(*_SIGNALS) as signals:
        async for number in signals:
            if stop.is_set():
                scope.cancel()
                return
            stop.set()
            note(f"{signal.Signals(number).name}: {_STOPPING}")


class _View:
    """The view on the terminal until it is to stop; then the terminal is as it was. ``t`` opens ``top`` in its place:
    with ``q`` one comes back from there, Ctrl-C ends both."""

    def __init__(self, session: Session, events: Events, stop: anyio.Event, out: Out, namespace: str) -> None:
        self._session = session
        self._events = events
        self._stop = stop
        self._out = out
        self._namespace = namespace
        self._closer = False
        self._gone = False
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        """Say something once the terminal is given back: in between it would tear what is drawn."""
        if self._gone:
            self._out.note(text)
        else:
            self._notes.append(text)

    def _on_key(self, key: str) -> None:
        if key in "qQ":
            self._stop.set()
            self.note(_STOPPING)
        elif key in "tT" and self._session.view().phase == "running":
            self._closer = True

    async def draw(self) -> None:
        """Show it."""
        try:
            with screen(self._on_key, colorless=self._out.colorless) as view:
                while not self._stop.is_set():
                    if self._closer:
                        await self._look_closer(view)
                    view.show(render(self._session.view(), view.size))
                    with anyio.move_on_after(_FRAME_S):
                        await self._stop.wait()
        except (OSError, termios.error):
            self._stop.set()  # the terminal was closed: nobody looks on any more
        finally:
            self._gone = True
            for text in self._notes:
                self._out.note(text)

    async def _look_closer(self, view: Screen) -> None:
        code = await look_closer(
            view,
            self._stop,
            url=self._session.view().url,
            namespace=self._namespace,
            colorless=self._out.colorless,
        )
        self._closer = False
        if code and not self._stop.is_set():
            self._events.add(Mark.WARN, f"nats-mesh top ended with exit code {code}")


class Teller:
    """Tells events as they happen; of each topic up to a bound, so that what comes often takes no room from what does
    not. ``say`` prints a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        """Tell of it, where there is room."""
        self._told[event.topic] += 1
        if self._told[event.topic] <= MAX_TOLD:
            self._say(f"{event.time} {event.mark}: {event.text}")
        elif self._told[event.topic] == MAX_TOLD + 1:
            self._say(f"{event.time} {_further(event.topic)} are not listed, but counted")

    def close(self) -> None:
        """Say how many were not told."""
        for topic, count in self._told.items():
            if count > MAX_TOLD:
                self._say(f"not listed: {count - MAX_TOLD} {_further(topic)}")


def _further(topic: str) -> str:
    return "further events" if topic == "other" else f"further events of the kind {topic!r}"


@contextlib.contextmanager
def _logs_as_events(events: Events, *, alone: bool) -> Iterator[None]:
    """Note the warnings that libraries log; ``alone`` keeps them off stderr, where they would tear the view."""
    handler = LogEvents(events)
    root, library = logging.getLogger(), logging.getLogger("nats_mesh")
    before = root.handlers[:], library.handlers[:]
    root.handlers = [handler] if alone else [*before[0], handler]
    if not library.propagate:
        library.handlers = [handler] if alone else [*before[1], handler]
    try:
        yield
    finally:
        root.handlers, library.handlers = before
