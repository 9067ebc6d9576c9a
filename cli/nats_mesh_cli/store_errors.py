"""What goes wrong with a store on the bus, in this program's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nats_mesh.wire.kv import KvAbsentError, KvDeniedError, KvError
from nats_mesh_cli.errors import BUS, DENIED, FAILED, CliError

__all__ = ["store_errors"]


@contextmanager
def store_errors(
    namespace: str,
    what: str,
    maker: str,
    *,
    make: bool,
    instead: str = "",
    unsure: str = "look again: nobody knows whether it was stored",
) -> Iterator[None]:
    """Errors of the store of ``what`` inside the block become a :class:`CliError`.

    ``maker`` is the command that makes such a store, ``make`` whether this is it: then JetStream is missing, and
    ``instead`` says what does without. ``unsure`` is what to do where no answer came.
    """
    try:
        yield
    except KvAbsentError as error:
        missing = f"the server needs JetStream (nats-mesh up has it){instead and f'; {instead}'}"
        raise CliError(
            f"namespace {namespace!r} has no {what}: {error}",
            hint=missing if make else f"'{maker}' makes one",
            code=BUS if make else FAILED,
        ) from error
    except KvDeniedError as error:
        raise CliError(str(error), hint="use an operator's credentials: --creds FILE", code=DENIED) from error
    except KvError as error:
        raise CliError(str(error), hint=unsure if error.maybe else "", code=FAILED) from error
