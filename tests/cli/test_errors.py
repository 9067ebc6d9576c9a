"""Exit codes, hints and suggestions."""

from __future__ import annotations

import pytest
import typer

from nats_mesh import (
    CallError,
    CodecError,
    ConfigError,
    DisconnectedError,
    NoInstancesError,
    PermissionDeniedError,
    PolicyError,
    RemoteError,
    Status,
)
from nats_mesh_cli.errors import CliError, as_cli_error, call_error_document, did_you_mean, exit_code_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CliError("x", code=1), 1),
        (CliError("x"), 2),
        (typer.BadParameter("x"), 2),
        (ConfigError("x"), 2),
        (PolicyError("x"), 2),
        (CodecError("x"), 1),
        (RemoteError("x", status=Status.INTERNAL), 1),
        (RemoteError("x", status=Status.INVALID_ARGUMENT), 1),
        (RemoteError("x", status=Status.UNAUTHENTICATED), 4),
        (NoInstancesError("x"), 1),
        (DisconnectedError("x"), 3),
        (PermissionDeniedError("x"), 4),
        (RuntimeError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: Exception, code: int) -> None:
    """1 the answer is no · 2 usage · 3 the bus cannot be reached · 4 not allowed."""
    assert exit_code_of(error) == code


def test_an_error_out_of_a_task_group_is_the_error_itself() -> None:
    """A group of one is unwrapped, however deep: the user meets the cause."""
    group = ExceptionGroup("a", [ExceptionGroup("b", [DisconnectedError("away")])])
    known = as_cli_error(group)
    assert known is not None
    assert (known.message, known.code) == ("away", 3)


def test_a_defect_is_not_dressed_up_as_the_users_mistake() -> None:
    """What no user can cause is not translated."""
    assert as_cli_error(KeyError("x")) is None


def test_a_failed_call_keeps_its_facts_for_programs() -> None:
    """The document of a call error has status, executed and details as raw values."""
    error = RemoteError(
        "gone", status=Status.ABORTED, service="orders", endpoint="place", attempts=2, retry_after_s=0.5,
        details={"sku": "b"}, type="Gone",
    )  # fmt: skip
    assert call_error_document(error) == {
        "status": "ABORTED",
        "message": "gone",
        "service": "orders",
        "endpoint": "place",
        "executed": "yes",
        "attempts": 2,
        "retry_after_s": 0.5,
        "refused": None,
        "type": "Gone",
        "details": {"sku": "b"},
    }
    known = as_cli_error(error)
    assert known is not None
    assert known.message == "orders.place: gone (ABORTED)"


def test_without_a_target_the_message_is_plain() -> None:
    """An error of the connection names no call and no status."""
    known = as_cli_error(DisconnectedError("cannot reach it"))
    assert known is not None
    assert known.message == "cannot reach it"
    assert "nats-mesh up" in known.hint


def test_statuses_are_not_errors_of_their_own() -> None:
    """A base CallError is a failed call like any other."""
    assert exit_code_of(CallError("x")) == 1


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("ordres", ["orders", "stock"], "did you mean 'orders'?"),
        ("ORDERS", ["orders"], "did you mean 'orders'?"),
        ("xyz", ["orders"], ""),
        ("", [], ""),
    ],
)
def test_did_you_mean(word: str, known: list[str], said: str) -> None:
    """The nearest name, whatever its case; silence where nothing is near."""
    assert did_you_mean(word, known) == said
