"""Errors for people and for scripts: one line, what to do about it, and an exit code.

Exit codes: 0 ok · 1 the answer is no, or it failed · 2 usage or bad input · 3 the bus cannot be
reached · 4 not allowed · 130 Ctrl-C · 141 whoever read the output has gone.

Nothing here imports the library at start-up: ``--help`` must not pay for it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from nats_mesh_cli.misread import number_problem

if TYPE_CHECKING:
    from nats_mesh.errors import CallError, PolicyError

__all__ = [
    "BUS",
    "DENIED",
    "FAILED",
    "INTERRUPTED",
    "OK",
    "PIPE",
    "USAGE",
    "CliError",
    "as_cli_error",
    "call_error_document",
    "did_you_mean",
    "exit_code_of",
    "one_line",
    "option_meant",
    "problem_documents",
]

OK, FAILED, USAGE, BUS, DENIED = 0, 1, 2, 3, 4
INTERRUPTED, PIPE = 130, 141

#: What typer raises for a command line that it cannot read; named by descent, because older versions of
#: typer take it from click and newer ones bring their own.
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]


class CliError(Exception):
    """Something to tell the user: ``message`` on one line, ``hint`` what to do, ``code`` the exit code.

    ``document`` are further facts for ``-o json``.
    """

    def __init__(
        self, message: str, *, hint: str = "", code: int = USAGE, document: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.document = document or {}


def one_line(text: str) -> str:
    """``text`` fit for one line of a terminal: line ends and control characters become blanks."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the nearest of ``known`` (case does not matter); empty where none is near."""
    names = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {names[found[0]]!r}?" if found else ""


def option_meant(word: str, known: Iterable[str]) -> str:
    """The same for options: what all begin with makes none near, and one may be written in part (``--dur``)."""
    names = {name[2:]: name for name in known if name.startswith("--")}
    bare = word.lower().removeprefix("--")
    begun = [name for name in names if name.startswith(bare)]
    if not word.startswith("--") or len(bare) < 2:
        return ""
    found = begun if len(begun) == 1 else difflib.get_close_matches(bare, names, n=1, cutoff=0.7)
    return f"did you mean {names[found[0]]!r}?" if found else ""


def exit_code_of(error: BaseException) -> int:
    """The exit code for what ended a command."""
    if isinstance(error, CliError):
        return error.code
    if isinstance(error, _ClickException):
        return USAGE
    library = sys.modules.get("nats_mesh.errors")
    if library is None:  # nothing of the mesh ran, so nothing of it can have failed
        return FAILED
    if isinstance(error, library.DisconnectedError):
        return BUS
    if isinstance(error, library.CallError):
        denied = (library.Status.PERMISSION_DENIED, library.Status.UNAUTHENTICATED)
        return DENIED if error.status in denied else FAILED
    return USAGE if isinstance(error, library.ConfigError | library.PolicyError) else FAILED


def as_cli_error(error: BaseException) -> CliError | None:
    """What to tell the user of ``error``; ``None`` where it is none of his making but a defect of this program."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, CliError):
        return error
    code = exit_code_of(error)
    if isinstance(error, _ClickException):
        formatted = getattr(error, "format_message", error.__str__)()
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "nats-mesh"
        return CliError(
            number_problem(error) or one_line(formatted).replace("Value error, ", "").rstrip("."),
            hint=f"see '{path} --help'",
            code=code,
        )
    library = sys.modules.get("nats_mesh.errors")
    if library is not None and isinstance(error, library.CallError):
        text = str(error) if error.service else error.message or str(error)
        return CliError(text, hint=_hint(error), code=code, document=call_error_document(error))
    if library is not None and isinstance(error, library.PolicyError):
        return CliError(str(error), code=code, document={"problems": problem_documents(error)})
    if library is not None and isinstance(error, library.MeshError):
        return CliError(str(error), code=code)
    if isinstance(error, OSError) and error.filename is not None:
        return CliError(f"{error.filename}: {error.strerror or error}", code=USAGE)
    return None


def problem_documents(error: PolicyError) -> list[dict[str, Any]]:
    """Everything that is wrong with policies, as ``-o json`` shows it. The message has the place, too."""
    return [
        {"file": each.file, "line": each.line, "path": each.path, "message": str(each)}
        for each in error.problems
    ]


def call_error_document(error: CallError) -> dict[str, Any]:
    """A failed call as ``-o json`` shows it."""
    return {
        "status": str(error.status),
        "message": error.message,
        "service": error.service,
        "endpoint": error.endpoint,
        "executed": str(error.executed),
        "attempts": error.attempts,
        "retry_after_s": error.retry_after_s,
        "refused": None if error.refused is None else str(error.refused),
        "type": error.type,
        "details": dict(error.details),
    }


def _hint(error: CallError) -> str:
    code = exit_code_of(error)
    if code == BUS and "nats-mesh up" not in error.message:
        return "is a nats-server running there? 'nats-mesh up' starts one; -s names another"
    if code == DENIED:
        return "use credentials that allow it: --creds FILE, or --context of the nats CLI"
    return ""
