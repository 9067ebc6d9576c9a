"""Which calls an observer wants to hear of: the same decision at the instances and at the observer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Final

import msgspec

from nats_mesh.core.envelope import MAX_VALUE, Envelope, is_secret, is_whole
from nats_mesh.core.presence import Name

__all__ = ["MAX_CHOICES", "MAX_HEADERS", "MAX_SLOW_S", "OK", "Filter", "Tappable"]

#: How many of each may be named, and how many headers.
MAX_CHOICES: Final = 32
MAX_HEADERS: Final = 8
#: The status of what ended well.
OK: Final = "OK"
#: The longest that a call can be asked to have taken (seconds).
MAX_SLOW_S: Final = 1e6

_Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_CHOICES)]
_Status = Annotated[str, msgspec.Meta(pattern=r"\A[A-Z_]{1,40}\Z")]
_HeaderName = Annotated[str, msgspec.Meta(pattern=r"\A[!#$%&'*+.^_`|~0-9a-z-]{1,256}\Z")]
_Value = Annotated[str, msgspec.Meta(max_length=MAX_VALUE)]


class Tappable(msgspec.Struct, frozen=True):
    """What a filter may ask of a call that has ended. ``headers`` gives those that may be shown, with their names in
    lower case; it is asked where a filter names some."""

    endpoint: str
    caller: str
    route: str
    status: str
    duration_s: float
    headers: Callable[[], Collection[tuple[str, str]]]


class Filter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every part that says something must hold; of several names one. A filter that says nothing admits every call.

    ``failed``: whatever did not end well, in the caller's fault or the service's. ``headers``: each of these has this
    value; a value that is hidden or cut matches nothing, so that nobody learns a secret by asking for it.
    """

    endpoints: _Names = ()
    callers: _Names = ()
    routes: _Names = ()
    statuses: Annotated[tuple[_Status, ...], msgspec.Meta(max_length=MAX_CHOICES)] = ()
    failed: bool = False
    slow_s: Annotated[float, msgspec.Meta(ge=0.0, le=MAX_SLOW_S)] = 0.0
    headers: Annotated[tuple[tuple[_HeaderName, _Value], ...], msgspec.Meta(max_length=MAX_HEADERS)] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it lets every call through."""
        return self == _ALL

    def admits(self, call: Tappable) -> bool:
        """Whether this call is wanted."""
        if self.endpoints and call.endpoint not in self.endpoints:
            return False
        if self.callers and call.caller not in self.callers:
            return False
        if self.routes and call.route not in self.routes:
            return False
        if self.statuses and call.status not in self.statuses:
            return False
        if self.failed and call.status == OK:
            return False
        if call.duration_s < self.slow_s:
            return False
        if not self.headers:
            return True
        shown = call.headers()
        return all(pair in shown and is_whole(pair[1]) and not is_secret(pair[0]) for pair in self.headers)

    def admits_told(self, call: Envelope) -> bool:
        """The same, of a call that an instance has told of."""
        return self.admits(
            Tappable(
                call.endpoint, call.caller, call.route, call.status, call.duration_s, lambda: call.headers
            )
        )


_ALL: Final = Filter()
