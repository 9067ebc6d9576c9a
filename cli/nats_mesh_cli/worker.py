"""Serving in this process: for ``run`` itself, and as the entry point of its worker processes.

A worker is told what to do in its one argument (JSON). It writes a byte to ``ready_fd`` once it serves,
and drains when its stdin ends: so it never outlives the process that supervises it, however that ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from nats_mesh import Service
from nats_mesh.runner import START_PATIENCE_S, run_to_end, serve
from nats_mesh.serving import exposing
from nats_mesh.serving.instance import Instance
from nats_mesh.settings import Settings
from nats_mesh_cli.errors import INTERRUPTED, OK
from nats_mesh_cli.loader import load_services
from nats_mesh_cli.options import Options
from nats_mesh_cli.output import Out, counted

__all__ = ["Order", "main", "serve_here"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is started with."""

    targets: tuple[str, ...]
    app_dir: str
    options: Options
    ready_fd: int
    #: The socket on which whoever supervises asks for metrics (-1: nobody does), and the port where it tells them.
    metrics_fd: int = -1
    metrics_port: int = 0
    #: Stands before the worker's lines, so that one can tell the workers apart.
    label: str = ""


def serve_here(
    options: Options,
    out: Out,
    targets: Sequence[str],
    app_dir: Path,
    *,
    label: str = "",
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Import the services and serve them until SIGINT or SIGTERM."""
    _log_to_stderr()
    _export(options)
    services = load_services(targets, app_dir)
    if options.policies is not None:
        for service in services:
            service.policies = options.policies

    def ready(instances: list[Instance]) -> None:
        for instance in instances:
            out.note(f"{label}{_ready_line(instance)}")
        if on_ready is not None:
            on_ready()

    run_to_end(
        serve(
            *services,
            patience_s=options.timeout_s or START_PATIENCE_S,
            on_ready=ready,
            settings_of=lambda service: _settings(service, options),
        )
    )


def _settings(service: Service, options: Options) -> Settings:
    """What the command line says wins over what the code says; the rest is left to code and environment."""
    named = options.server is not None or options.context is not None
    return Settings.resolve(
        servers=options.server if named else service.servers,
        namespace=options.namespace or service.namespace,
        credentials=options.creds or service.credentials,
        tls=service.tls,
        context=options.context,
    )


def _export(options: Options) -> None:
    """Let a Mesh that the services open by themselves join the same mesh."""
    if options.context is not None and options.server is None:
        os.environ.pop("NATS_URL", None)
    given = {
        "NATS_URL": options.server,
        "NATS_CONTEXT": options.context,
        "NATS_CREDS": options.creds,
        "MESH_NAMESPACE": options.namespace,
        "MESH_POLICIES": options.policies,
    }
    os.environ.update({name: value for name, value in given.items() if value is not None})


def _log_to_stderr() -> None:
    """Everything from INFO on, or from MESH_LOG on; the ready lines are printed in place of the instances' own."""
    logging.getLogger("nats_mesh").propagate = True
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    if not os.environ.get("MESH_LOG"):
        logging.getLogger("nats_mesh.instance").setLevel(logging.WARNING)


def _ready_line(instance: Instance) -> str:
    service, policies = instance.service, len(instance.client.outbound.policies)
    under = f" under {counted(policies, 'policy', 'policies')}" if policies else ""
    return (
        f"{service.name} {service.version} is ready: {counted(len(service.endpoints), 'endpoint')} "
        f"in namespace {instance.settings.namespace}{under} on {instance.transport.server} "
        f"as {instance.id} ({instance.name})"
    )


def _follow_stdin() -> None:
    """Drain when the supervising process has gone: its end of our stdin closes with it."""
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass  # nothing is ever said there; only its end matters
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: Sequence[str]) -> int:
    """Serve as ordered; returns the exit code."""
    from nats_mesh_cli.main import report as say

    order = msgspec.json.decode(argv[0], type=Order)
    out = Out()
    threading.Thread(target=_follow_stdin, daemon=True, name="follow-supervisor").start()

    def tell() -> None:
        os.write(order.ready_fd, b"1")
        os.close(order.ready_fd)

    report = None
    if order.metrics_fd >= 0:
        os.environ.pop("MESH_METRICS_PORT", None)  # it is the supervisor's
        report = exposing.report_to(order.metrics_fd, order.metrics_port)
    try:
        serve_here(order.options, out, order.targets, Path(order.app_dir), label=order.label, on_ready=tell)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever ends a worker becomes a message and an exit code
        return say(error, out)
    finally:
        if report is not None:
            report.finish()
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
