"""``top`` from its options to its exit code: joins the bus, the terminal and what is pure."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import signal
import termios
from collections.abc import Iterator
from typing import Final

import anyio
import anyio.abc
from msgspec.structs import replace

from nats_mesh import Mesh
from nats_mesh.telemetry.watching import MeshView
from nats_mesh_cli import starting
from nats_mesh_cli.bus import CALLER, connected
from nats_mesh_cli.demo.screen import Screen, screen
from nats_mesh_cli.describe import describe_on
from nats_mesh_cli.errors import BUS, FAILED, INTERRUPTED, OK, CliError, as_cli_error
from nats_mesh_cli.heard import listened, untold
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, counted
from nats_mesh_cli.silent import silent_text
from nats_mesh_cli.top.keys import KeyReader
from nats_mesh_cli.top.once import report
from nats_mesh_cli.top.reducing import described, fed, reduce, resized
from nats_mesh_cli.top.source import Source
from nats_mesh_cli.top.state import State, View, start
from nats_mesh_cli.top.view import render

__all__ = ["look", "once", "top"]

#: A frame at the latest after so long, and the beginning of a sequence of keys is the key Esc after so long (seconds).
FRAME_S: Final = 0.25
_ESCAPE_S: Final = 0.04
#: How often the mesh is looked at (seconds), and how long ``--once`` listens where nothing is said.
_NEWS_S: Final = 1.0
ONCE_S: Final = 3.0
_DESCRIBE_S: Final = 10.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Somebody else may have written to the terminal (a shell, after SIGSTOP, which nobody can obey), or it had another
#: size for a moment and has lost what found no room then.
_DOUBTING: Final = (signal.SIGCONT, signal.SIGWINCH)


async def once(options: Options, out: Out, *, name: str | None = None) -> int:
    """Listen for a while and print what the view would show."""
    async with connected(options, name or CALLER) as mesh, MeshView(mesh) as view:
        source = Source(mesh, view, options, out)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.ready)
            complete = await listened(view, options.timeout_s or ONCE_S)
            tasks.cancel_scope.cancel()
        await source.silence.look()
        data = source.data()
    if not data.mesh.connected:
        raise CliError("the bus went away meanwhile", code=BUS)
    text = report(data, options.format, pretty=out.tty, color=out.color)
    if text:
        out.data(text)
    if not complete:
        out.note(untold(view.late), "warn")
    if data.silent:
        out.note(f"note: {silent_text(data.silent)}", "bad")
    if not options.format.structured and options.format is not Format.NAME:
        if not data.mesh.services:
            out.note("no services yet: nobody is there, and nobody is called", "dim")
        elif data.mesh.overflowed or data.mesh.ignored:
            out.note(
                f"note: {counted(data.mesh.overflowed + data.mesh.ignored, 'message was', 'messages were')} left out",
                "warn",
            )
    return OK


async def top(options: Options, out: Out, *, name: str | None = None) -> int:
    """Show the mesh on the terminal until a key or a signal ends it."""
    async with connected(options, name or CALLER) as mesh, MeshView(mesh) as view:
        source = Source(mesh, view, options, out)
        return await look(mesh, source, options, out)


async def look(mesh: Mesh, source: Source, options: Options, out: Out) -> int:
    """The view of an open mesh; returns the exit code when a person has seen enough."""
    show = _Show(mesh, source, options)
    failure: Exception | None = None
    with _quiet(), starting.seldom():
        try:
            with screen(show.on_character, colorless=out.colorless) as terminal:
                async with anyio.create_task_group() as tasks:
                    show.tasks = tasks
                    tasks.start_soon(_obey_signals, show, terminal)
                    tasks.start_soon(source.ready)
                    tasks.start_soon(source.follow)
                    tasks.start_soon(source.watch_promises)
                    tasks.start_soon(source.watch_silence)
                    tasks.start_soon(_feed, show)
                    try:
                        await _draw(show, terminal)
                    except Exception as error:  # noqa: BLE001 - raised again outside: no group of one
                        failure = error
                    tasks.cancel_scope.cancel()
        except* (OSError, termios.error):
            show.code = FAILED  # the terminal was closed: nobody looks on any more
    if failure is not None:
        raise failure
    return show.code


class _Show:
    """The state, and who changes it: keys at once, news once a second."""

    def __init__(self, mesh: Mesh, source: Source, options: Options) -> None:
        self.state = start(source.data())
        self.code = OK
        self.source = source
        self.tasks: anyio.abc.TaskGroup | None = None
        self.mesh = mesh
        self._options = options
        self._keys = KeyReader()
        self._changed = anyio.Event()
        self._described: anyio.CancelScope | None = None
        self._flushing = False

    def on_character(self, character: str) -> None:
        """A character from the terminal; what it does shows with the next frame, which comes at once."""
        self._press(self._keys.feed(character))
        if self._keys.waiting and not self._flushing and self.tasks is not None:
            self._flushing = True
            self.tasks.start_soon(self._flush)

    async def _flush(self) -> None:
        await anyio.sleep(_ESCAPE_S)
        self._flushing = False
        self._press(self._keys.flush())

    def _press(self, keys: list[str]) -> None:
        for key in keys:
            self.change(reduce(self.state, key))

    def change(self, state: State) -> None:
        """Another state: draw it, and do what it asks for."""
        before, self.state = self.state, state
        self._changed.set()
        if state.wanted != before.wanted:
            if self._described is not None:
                self._described.cancel()
            if state.wanted is not None and self.tasks is not None:
                self.tasks.start_soon(self._describe, *state.wanted)
        self.source.tap.show(state.only)
        tapping = state.view is View.TAP
        if tapping and not self.source.tapping and self.tasks is not None:
            self.tasks.start_soon(self.source.watch_calls)
        elif not tapping:
            self.source.leave_calls()

    def feed(self) -> None:
        """Look at the mesh anew."""
        self.change(fed(self.state, self.source.data()))

    def end(self, code: int) -> None:
        """A signal: nothing more is drawn."""
        self.code = code
        self.change(replace(self.state, done=True))

    async def changed(self, within_s: float) -> None:
        """Return at once where something has changed since the last time, else when it does, or in time."""
        with anyio.move_on_after(within_s):
            await self._changed.wait()
        self._changed = anyio.Event()

    async def _describe(self, what: str, caller: str) -> None:
        """Ask everybody about ``what``; the page says what came of it."""
        with anyio.CancelScope() as scope:
            self._described = scope
            text = await described_text(self.mesh, self._options, what, caller)
            self.change(described(self.state, f"describe {what}", text))


async def described_text(mesh: Mesh, options: Options, what: str, caller: str) -> str:
    """What ``describe`` prints, or why it cannot."""
    told, notes = io.StringIO(), io.StringIO()
    plain = dataclasses.replace(options, format=Format.TABLE, color=False)
    out = Out(told, notes)
    out.colorless = True
    try:
        with anyio.fail_after(_DESCRIBE_S):
            await describe_on(mesh, plain, out, what, caller=caller or None)
    except TimeoutError:
        return f"nobody has answered within {_DESCRIBE_S:g} s"
    except Exception as error:  # noqa: BLE001 - one page cannot be shown: that is no reason to end the view
        known = as_cli_error(error) or CliError(f"{type(error).__name__}: {error}")
        return "\n".join(part for part in (known.message, known.hint) if part)
    return "\n".join(part for part in (told.getvalue().rstrip("\n"), notes.getvalue().rstrip("\n")) if part)


async def _feed(show: _Show) -> None:
    """Look at the mesh once a second; while calls are shown live, when some have come."""
    while True:
        if show.source.tapping:
            with anyio.move_on_after(_NEWS_S):
                await show.source.tap.news()
        else:
            await anyio.sleep(_NEWS_S)
        show.feed()


async def _draw(show: _Show, terminal: Screen) -> None:
    """Draw whenever something has changed, and look at the terminal's size four times a second."""
    drawn: State | None = None
    while True:
        show.state = resized(show.state, terminal.size)
        state = show.state
        if state.done:
            return
        if state.stop:
            show.state = replace(state, stop=False)
            # The whole job stops, as the shell would have it: whoever started this waits with it.
            os.killpg(os.getpgrp(), signal.SIGTSTP)
            drawn = None
            continue
        if state.anew:
            terminal.forget()
            state = show.state = replace(state, anew=False)
        if state is not drawn:
            terminal.paint(render(state, state.size).lines, state.size)
            drawn = state
        await show.changed(FRAME_S)


async def _obey_signals(show: _Show, terminal: Screen) -> None:
    """A signal ends the view as a key does; a stop gives the terminal back until the program goes on; where the screen
    may be torn, all of it is drawn."""
    with anyio.open_signal_receiver(*_ENDING, *_DOUBTING, signal.SIGTSTP) as signals:
        async for number in signals:
            if number == signal.SIGTSTP:
                with terminal.given_back():
                    _stop_here()
                show.feed()
            elif number in _DOUBTING:
                show.change(replace(show.state, anew=True))
            else:
                show.end(INTERRUPTED if number == signal.SIGINT else 128 + number)


def _stop_here() -> None:
    """Stop as if nobody had caught the signal; returns when the program is told to go on."""
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    try:
        signal.raise_signal(signal.SIGTSTP)
    finally:
        signal.signal(signal.SIGTSTP, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is logged to the terminal meanwhile: a line in between would tear the view."""
    root, library = logging.getLogger(), logging.getLogger("nats_mesh")
    before = root.handlers[:], library.handlers[:]
    root.handlers, library.handlers = [logging.NullHandler()], [logging.NullHandler()]
    try:
        yield
    finally:
        root.handlers, library.handlers = before
