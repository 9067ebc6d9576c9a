"""The load: pages asked for at a steady rate, whatever the answers do (an open loop), up to a bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio
import anyio.lowlevel
import msgspec

from nats_mesh import CallError, Executed, Mesh, MeshError
from nats_mesh_cli.demo.state import PagesLine

__all__ = ["CALLER", "ENDPOINT", "MAX_IN_FLIGHT", "MAX_RATE_PER_S", "SERVICE", "Load"]

#: Who asks, and for what.
CALLER = "web"
SERVICE = "productpage"
ENDPOINT = "page"
MAX_RATE_PER_S = 5000.0
MAX_IN_FLIGHT = 128
#: Longer than the page's own patience with its parts, so that a late part is its failure and not ours (seconds).
_TIMEOUT_S = 8.0
#: Every so many pages are asked for by a user who is signed in; routes can match on that.
_SIGNED_IN_EVERY = 4
_USER = "jason"
#: What is due within so many seconds is due: a wait for less might not move the clock at all.
_TICK_S = 1e-6


class _Reviews(msgspec.Struct):
    podname: str = ""


class _Page(msgspec.Struct):
    reviews: _Reviews | None = None
    errors: dict[str, str] = {}


class Load:
    """Asks for pages and counts what came of it.

    ``calls`` pages were asked for, of which ``failed`` brought an error (``statuses`` says which) and
    ``degraded`` came without one of their parts. ``unsent`` calls surely reached nobody, of ``unknown`` ones
    nobody can say. ``skipped`` were due while ``max_in_flight`` were in flight and never asked for.
    """

    def __init__(
        self,
        mesh: Mesh,
        *,
        rate_per_s: float,
        on_trouble: Callable[[str], None],
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self.rate_per_s = rate_per_s
        self.calls = 0
        self.degraded = 0
        self.skipped = 0
        self.unsent = 0
        self.unknown = 0
        self.in_flight = 0
        self.asked_s = 0.0
        self.statuses: Counter[str] = Counter()
        #: Of which part how many pages came without it.
        self.parts: Counter[str] = Counter()
        #: Which instances of ``reviews`` answered, by id.
        self.reviewers: set[str] = set()
        self._mesh = mesh
        self._on_trouble = on_trouble
        self._max_in_flight = max_in_flight

    @property
    def failed(self) -> int:
        """How many pages brought an error."""
        return self.statuses.total()

    @property
    def line(self) -> PagesLine:
        """The counters for the view."""
        return PagesLine(
            asked_per_s=self.rate_per_s,
            calls=self.calls,
            failed=self.failed,
            degraded=self.degraded,
            skipped=self.skipped,
            in_flight=self.in_flight,
        )

    async def page(self) -> bool:
        """Ask for one page; whether it came with all its parts."""
        self.calls += 1
        self.in_flight += 1
        headers = {"end-user": _USER} if self.calls % _SIGNED_IN_EVERY == 0 else None
        try:
            page = await self._mesh.call(
                f"{SERVICE}.{ENDPOINT}",
                returns=_Page,
                headers=headers,
                timeout=_TIMEOUT_S,
                idempotent=False,  # a page that ran is not asked for again: the totals of both ends are compared
            )
        except MeshError as error:
            self._count(error)
            return False
        finally:
            self.in_flight -= 1
        if page.reviews is not None:
            self.reviewers.add(page.reviews.podname)
        if page.errors:
            self.degraded += 1
            self.parts.update(page.errors.keys())
            self._on_trouble(f"a page came without its {' and '.join(sorted(page.errors))}")
        return not page.errors

    def _count(self, error: MeshError) -> None:
        if isinstance(error, CallError):
            self.statuses[error.status] += 1
            # What an instance refused, or an operator aborted there, was sent, and is counted there.
            here = error.attempts == 0 or (error.refused is None and not error.fault)
            self.unsent += error.executed is Executed.NO and here
            self.unknown += error.executed is Executed.MAYBE
        else:
            self.statuses[type(error).__name__] += 1
        self._on_trouble(f"a page failed: {error}")

    async def run(self, stop: anyio.Event, duration_s: float | None) -> None:
        """Ask until ``stop`` or for ``duration_s`` seconds, then wait for the last answers."""
        start = anyio.current_time()
        due = 0
        async with anyio.create_task_group() as pages:
            while not stop.is_set():
                elapsed_s = anyio.current_time() - start + _TICK_S
                if duration_s is not None and elapsed_s >= duration_s:
                    break
                # What a stall of this process kept back is made up for: an open loop does not go easy on anybody.
                while due <= elapsed_s * self.rate_per_s:
                    due += 1
                    if self.in_flight < self._max_in_flight:
                        pages.start_soon(self.page)
                        await anyio.lowlevel.checkpoint()
                    else:
                        self.skipped += 1
                ends = float("inf") if duration_s is None else duration_s
                pause_s = min(due / self.rate_per_s, ends) - (anyio.current_time() - start)
                with anyio.move_on_after(max(0.0, pause_s)):
                    await stop.wait()
            self.asked_s = anyio.current_time() - start
