"""The demo from its options to its exit code: with a live view where a person looks on, quietly elsewhere."""

from __future__ import annotations

import contextlib
import logging
import signal
import termios
from collections.abc import Callable, Iterator

import anyio
import anyio.lowlevel

from nats_mesh import MeshError
from nats_mesh_cli.demo.events import Events, LogEvents
from nats_mesh_cli.demo.report import report
from nats_mesh_cli.demo.screen import screen
from nats_mesh_cli.demo.session import Options, Session
from nats_mesh_cli.demo.state import Event
from nats_mesh_cli.demo.summary import Summary
from nats_mesh_cli.demo.view import render
from nats_mesh_cli.errors import FAILED, INTERRUPTED, OK
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import Out

__all__ = ["demo"]

_FRAME_S = 0.25
_MAX_TOLD = 200
_STOPPING = "stopping; Ctrl-C stops at once"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


async def demo(options: Options, out: Out, fmt: Format, *, live: bool) -> int:
    """Run the demo and print its summary; returns the exit code. ``live`` draws on the terminal meanwhile."""
    events = Events(None if live else _teller(out))
    session = Session(options, events)
    stop = anyio.Event()
    summary: Summary | None = None
    failure: MeshError | None = None
    with _logs_as_events(events, alone=live):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_obey_signals, stop, tasks.cancel_scope, out)
            if live:
                tasks.start_soon(_draw, session, stop, out)
            try:
                summary = await session.run(stop)
            except MeshError as error:  # raised outside the group: callers want it, not a group of one
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if summary is None:
        out.note("stopped before there was anything to report")
        return INTERRUPTED
    out.data(report(summary, fmt, pretty=out.tty, color=out.color))
    for problem in summary.problems:
        out.note(f"error: {problem}", "bad")
    return OK if summary.ok else FAILED


async def _obey_signals(stop: anyio.Event, scope: anyio.CancelScope, out: Out) -> None:
    """The first signal ends the load and asks for the summary, the second ends everything at once."""
    with anyio.open_signal_receiver(*_SIGNALS) as signals:
        async for number in signals:
            if stop.is_set():
                scope.cancel()
                return
            stop.set()
            await anyio.lowlevel.checkpoint()  # the view goes first
            out.note(f"{signal.Signals(number).name}: {_STOPPING}")


async def _draw(session: Session, stop: anyio.Event, out: Out) -> None:
    """Show the view until it is to stop; then the terminal is as it was."""

    by_key = False

    def on_key(key: str) -> None:
        nonlocal by_key
        if key in "qQ":
            by_key = True
            stop.set()

    try:
        with screen(on_key, colorless=out.colorless) as view:
            while not stop.is_set():
                view.show(render(session.view(), view.size))
                with anyio.move_on_after(_FRAME_S):
                    await stop.wait()
    except (OSError, termios.error):
        stop.set()  # the terminal was closed: nobody looks on any more
    if by_key:
        out.note(_STOPPING)


def _teller(out: Out) -> Callable[[Event], None]:
    """Tells events as they happen, up to a bound: the summary says what matters of the rest."""
    told = 0

    def tell(event: Event) -> None:
        nonlocal told
        told += 1
        if told <= _MAX_TOLD:
            out.note(f"{event.time} {event.mark}: {event.text}")
        elif told == _MAX_TOLD + 1:
            out.note("further events are not listed")

    return tell


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
