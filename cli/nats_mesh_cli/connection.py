"""What commands that go on say of their connection."""

from __future__ import annotations

from nats_mesh_cli.output import Out

__all__ = ["Connection"]


class Connection:
    """Says when the bus goes away and comes back, so that silence is not taken for peace. ``meanwhile`` is what that
    means for what is shown."""

    def __init__(self, out: Out, meanwhile: str = "what is shown may be old") -> None:
        self._out = out
        self._meanwhile = meanwhile

    def on_disconnect(self, reason: str) -> None:
        """The bus is away."""
        self._out.note(f"the connection is lost ({reason}); {self._meanwhile}", "warn")

    def on_reconnect(self) -> None:
        """The bus is back."""
        self._out.note("connected again", "ok")

    def on_denied(self, operation: str, subject: str) -> None:
        """The server refuses what was asked of it."""
        self._out.note(f"the server's permissions refuse {operation} on {subject}", "bad")
