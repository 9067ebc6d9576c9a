"""Which of a caller's headers go along with the calls made for it.

Trace context and baggage travel by themselves. The sample also forwards cookies and tokens; here
credentials stay with the service they were sent to.
"""

from __future__ import annotations

from nats_mesh import Context, Headers

__all__ = ["forwarded"]

_FORWARDED = ("end-user", "user-agent", "x-request-id")


def forwarded(ctx: Context) -> Headers:
    """The headers to send along; routes match on ``end-user``."""
    return Headers([(name, ctx.headers[name]) for name in _FORWARDED if name in ctx.headers])
