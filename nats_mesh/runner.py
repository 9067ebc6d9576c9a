"""Runs services until they are told to stop: connects, serves, drains on SIGINT and SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable

import anyio

from nats_mesh.errors import CallError, ConfigError, DisconnectedError, MeshError, PolicyError, Status
from nats_mesh.instance import DRAIN_S, Instance
from nats_mesh.service import Service
from nats_mesh.settings import Settings

__all__ = [
    "EXIT_BUS",
    "EXIT_DENIED",
    "EXIT_FAILED",
    "EXIT_USAGE",
    "exit_code",
    "loop_factory",
    "run",
    "serve",
]

log = logging.getLogger("nats_mesh.runner")

EXIT_FAILED, EXIT_USAGE, EXIT_BUS, EXIT_DENIED = 1, 2, 3, 4
#: How long a starting service waits for a server, so that the order in which things start does not matter (seconds).
START_PATIENCE_S = 30.0


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where uvloop is installed, otherwise asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def serve(
    *services: Service,
    patience_s: float = START_PATIENCE_S,
    stop: anyio.Event | None = None,
    on_ready: Callable[[list[Instance]], None] | None = None,
    settings_of: Callable[[Service], Settings] | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or ``stop``; a second signal ends the drain at once.

    ``settings_of`` settles what each service connects with; without it code and environment do.
    :class:`DisconnectedError` where no server could be reached within ``patience_s`` seconds.
    """
    if not services:
        raise ConfigError("no service to run")
    failure: MeshError | None = None
    async with anyio.create_task_group() as tasks:
        stopping = stop or anyio.Event()
        tasks.start_soon(_watch_signals, stopping, tasks.cancel_scope)
        try:
            await _serve(services, patience_s, stopping, on_ready, settings_of)
        except MeshError as error:  # raised outside the group, so that callers see it and not a group of one
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(
    services: tuple[Service, ...],
    patience_s: float,
    stopping: anyio.Event,
    on_ready: Callable[[list[Instance]], None] | None,
    settings_of: Callable[[Service], Settings] | None,
) -> None:
    running: list[Instance] = []
    try:
        for service in services:
            settings = None if settings_of is None else settings_of(service)
            instance = await _start(service, settings, patience_s, stopping)
            if instance is None:
                return
            running.append(instance)
        if on_ready is not None:
            on_ready(running)
        await stopping.wait()
    finally:
        # The last started leaves first: what it calls may live in this process. All share one time to drain.
        deadline = anyio.current_time() + DRAIN_S
        for instance in reversed(running):
            await instance.drain(max(0.1, deadline - anyio.current_time()))
            await instance.__aexit__(None, None, None)


async def _start(
    service: Service, settings: Settings | None, patience_s: float, stopping: anyio.Event
) -> Instance | None:
    """Start one service; while the server is away, try again and say so once."""
    deadline = anyio.current_time() + patience_s
    said = False
    while not stopping.is_set():
        remaining = deadline - anyio.current_time()
        instance = Instance(service, settings=settings, connect_timeout=max(0.5, min(2.0, remaining)))
        try:
            return await instance.__aenter__()
        except DisconnectedError as error:
            if remaining <= 0:
                raise
            if not said:
                log.warning("%s waits up to %.0f s for the bus: %s", service.name, patience_s, error.message)
                said = True
            with anyio.move_on_after(min(0.5, max(0.05, remaining))):
                await stopping.wait()
    return None


async def _watch_signals(stopping: anyio.Event, scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if stopping.is_set():
                log.warning("second signal: stopping without finishing")
                scope.cancel()
                return
            log.info("%s: draining", signal.Signals(number).name)
            stopping.set()


def exit_code(error: MeshError) -> int:
    """The exit code that says what kind of error ended a program."""
    if isinstance(error, CallError) and error.status in (Status.PERMISSION_DENIED, Status.UNAUTHENTICATED):
        return EXIT_DENIED
    if isinstance(error, DisconnectedError):
        return EXIT_BUS
    return EXIT_USAGE if isinstance(error, ConfigError | PolicyError) else EXIT_FAILED


def run(*services: Service) -> None:
    """Serve until told to stop. Blocks; ends the process with a message and an exit code where it cannot start."""
    _basic_logging()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(*services))
    except MeshError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(exit_code(error)) from None


def _basic_logging() -> None:
    """Log to stderr where the application has not said otherwise."""
    root = logging.getLogger()
    if not root.handlers:
        logging.basicConfig(
            level=Settings.resolve().log_level,
            format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
            stream=sys.stderr,
        )
