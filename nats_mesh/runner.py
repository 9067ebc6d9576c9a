"""Runs services until they are told to stop: connects, serves, drains on SIGINT and SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import anyio

from nats_mesh.errors import CallError, ConfigError, DisconnectedError, MeshError, PolicyError, Status
from nats_mesh.service import Service
from nats_mesh.serving.instance import CLOSE_S, DRAIN_S, Instance
from nats_mesh.settings import Settings

__all__ = [
    "EXIT_BUS",
    "EXIT_DENIED",
    "EXIT_FAILED",
    "EXIT_USAGE",
    "START_PATIENCE_S",
    "exit_code",
    "loop_factory",
    "run",
    "run_to_end",
    "serve",
]

log = logging.getLogger("nats_mesh.runner")

EXIT_FAILED, EXIT_USAGE, EXIT_BUS, EXIT_DENIED = 1, 2, 3, 4
#: How long a starting service waits for a server, so that the order in which things start does not matter (seconds).
START_PATIENCE_S = 30.0
#: How long leaving may take after a second signal, for all services together (seconds).
HURRY_S = 2.0
#: How long what still runs after all services have left may take to end (seconds).
_LINGER_S = 0.5


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
    errors: list[Exception] = []
    async with anyio.create_task_group() as tasks:
        stopping = stop or anyio.Event()
        tasks.start_soon(_watch_signals, stopping, tasks.cancel_scope)
        await _serve(services, patience_s, stopping, on_ready, settings_of, errors)
        tasks.cancel_scope.cancel()
    if errors:  # raised outside the group, so that callers see it and not a group of one
        raise errors[0]


async def _serve(
    services: tuple[Service, ...],
    patience_s: float,
    stopping: anyio.Event,
    on_ready: Callable[[list[Instance]], None] | None,
    settings_of: Callable[[Service], Settings] | None,
    errors: list[Exception],
) -> None:
    running: list[Instance] = []
    try:
        for service in services:
            settings = None if settings_of is None else settings_of(service)
            instance = await _start(service, settings, patience_s, stopping)
            if instance is None:
                return
            instance.on_failure = stopping.set
            running.append(instance)
        if on_ready is not None:
            on_ready(running)
        await stopping.wait()
    # Whatever it is, every service is left before it is raised.
    except Exception as error:  # noqa: BLE001
        errors.append(error)
    finally:
        await _leave(running, errors)


async def _leave(running: list[Instance], errors: list[Exception]) -> None:
    """Leave every instance, whatever one of them raises; cancelled, all at once and without waiting.

    The last started leaves first: what it calls may live in this process. All share one time to drain.
    """
    deadline = anyio.current_time() + DRAIN_S
    try:
        while running:
            instance = running[-1]
            try:
                await instance.drain(max(0.1, deadline - anyio.current_time()))
            # One that cannot leave in order is closed, and does not keep the others from leaving.
            except Exception as error:  # noqa: BLE001
                errors.append(error)
            running.pop()
            await _close(instance, errors, CLOSE_S)
    finally:
        if running:
            await _hurry(running, errors)


async def _hurry(running: list[Instance], errors: list[Exception]) -> None:
    deadline = anyio.current_time() + HURRY_S
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as tasks:
            for instance in running:
                tasks.start_soon(_halt, instance, errors)
        async with anyio.create_task_group() as tasks:
            for instance in running:
                left_s = max(0.1, deadline - anyio.current_time())
                tasks.start_soon(_close, instance, errors, left_s / 2)


async def _halt(instance: Instance, errors: list[Exception]) -> None:
    try:
        await instance.halt()
    # As in _close.
    except Exception as error:  # noqa: BLE001
        errors.append(error)


async def _close(instance: Instance, errors: list[Exception], timeout_s: float) -> None:
    try:
        await instance.close(timeout_s)
    # What a lifespan raises is told, and does not keep the other services of the process serving.
    except Exception as error:
        log.exception("%s failed while it was left", instance.service.name)
        errors.append(error)


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
    try:
        _basic_logging()  # the environment is read here for the first time: what is wrong in it is said like the rest
        run_to_end(serve(*services))
    except MeshError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(exit_code(error)) from None


def run_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``, a :func:`serve`, on a loop of its own; for a process that ends with it.

    Handlers that cannot be stopped do not keep the process: it ends with the exit code of ``work``.
    """
    runner = asyncio.Runner(loop_factory=loop_factory())
    failure: BaseException | None = None
    try:
        runner.run(work)
    except BaseException as error:
        failure = error
        raise
    finally:
        if _lingers(runner.get_loop()):
            _end_process(failure)
        runner.close()


def _lingers(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether something still runs on the loop after it was told to stop, and given a moment for it."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=_LINGER_S))
    return any(not task.done() for task in tasks)


def _end_process(failure: BaseException | None) -> NoReturn:
    """End the process here: closing the loop would wait for ever for a handler that takes no cancellation,
    and for one that runs in a thread, which nobody can stop. Every service has left by now."""
    code = 0
    if isinstance(failure, MeshError):
        sys.stderr.write(f"error: {failure}\n")
        code = exit_code(failure)
    elif failure is not None:
        traceback.print_exception(failure)
        code = EXIT_FAILED
    log.warning("handlers that could not be stopped end with the process")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _basic_logging() -> None:
    """Log to stderr where the application has not said otherwise."""
    root = logging.getLogger()
    if not root.handlers:
        logging.basicConfig(
            level=Settings.resolve().log_level,
            format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
            stream=sys.stderr,
        )
