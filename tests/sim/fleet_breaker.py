"""An endpoint that fails for all of its callers, most of which call too seldom to find out; and one that fails for
some alone."""

from __future__ import annotations

from typing import Final

from nats_mesh import ApplicationError, Context, Status
from nats_mesh.testing import run_virtual
from tests.sim.plot import OTHER, OURS, PLAIN, Line, Panel
from tests.sim.report import Report, rates
from tests.sim.world import World, destination

__all__ = ["BEGINS_S", "ENDS_S", "NEEDED", "OPEN_S", "WINDOW_S", "outage", "partial", "refused", "report"]

#: So many callers must agree.
NEEDED: Final = 3
#: Callers in all, and how many calls a second all of them make.
_MANY, _FEW = 30, 6
_SELDOM_PER_S, _OFTEN_PER_S = 45.0, 60.0
#: From here on, and until here, it fails.
BEGINS_S, ENDS_S = 5.0, 45.0
OPEN_S, WINDOW_S = 5.0, 30.0
_ALONE = destination("retry: {attempts: 1}\nbreaker: {maxOpen: 10s}")
_TOGETHER = destination(f"retry: {{attempts: 1}}\nbreaker: {{maxOpen: 10s, verdicts: {{callers: {NEEDED}}}}}")


def outage(*, together: bool, seed: int, for_s: float = 60.0) -> World:
    """It fails for everybody for a while; each caller makes fewer calls than its breaker needs to judge, mostly."""
    policy = _TOGETHER if together else _ALONE
    return _run(None, policy, seed, for_s, _SELDOM_PER_S, _MANY)


def partial(affected: int, *, seed: int, for_s: float = 60.0) -> World:
    """It fails for the first ``affected`` callers alone, and for ever: they are wrong about the others."""
    return _run(affected, _TOGETHER, seed, for_s, _OFTEN_PER_S, _FEW)


def _run(affected: int | None, policy: str, seed: int, for_s: float, per_s: float, callers: int) -> World:
    async def main() -> World:
        names = {f"web{number}" for number in range(1, (affected or 0) + 1)}

        async def work(ctx: Context) -> None:
            fails = BEGINS_S <= world.now < ENDS_S if affected is None else world.now >= BEGINS_S
            if fails and (affected is None or ctx.caller in names):
                raise ApplicationError("out of order", status=Status.INTERNAL)

        async with World(seed, policy) as world:
            await world.serve(work, 2)
            await world.load(per_s, for_s, callers=callers, by_chance=True)
        return world

    return run_virtual(main)


def refused(world: World, affected: int) -> int:
    """Calls that a circuit refused to callers for whom the endpoint is well."""
    return sum(not call.ok and call.caller not in _names(affected) for call in world.calls)


def _names(affected: int) -> set[str]:
    return {f"web{number}" for number in range(1, affected + 1)}


def report() -> Report:
    """With seed 1, a minute each."""
    seed, for_s = 1, 60
    rows, lines, failed = [], [], []
    for together, label, colour in ((False, "each for itself", PLAIN), (True, "verdicts", OURS)):
        world = outage(together=together, seed=seed)
        during = [each.at for each in world.attempts if BEGINS_S <= each.at < ENDS_S]
        calls = sum(BEGINS_S <= call.began < ENDS_S for call in world.calls)
        late = sum(not call.ok and call.began >= ENDS_S for call in world.calls)
        rows.append((f"outage, {label}", f"{calls:,}", f"{len(during):,}", f"{late:,}"))
        lines.append(Line(label, rates([each.at for each in world.attempts], for_s), colour))
    for affected, colour in ((NEEDED - 1, OTHER), (NEEDED, OURS)):
        world = partial(affected, seed=seed)
        others = [call for call in world.calls if call.caller not in _names(affected)]
        lost = refused(world, affected)
        label = f"fails for {affected} of {_FEW}"
        since = [call for call in others if call.began >= BEGINS_S]
        rows.append((f"{label}: the others", f"{len(since):,}", f"{len(since) - lost:,}", f"{lost:,}"))
        failed.append(Line(label, rates([c.began for c in others if not c.ok], for_s), colour))
    return Report(
        name="fleet_breaker",
        title="Circuits opened by agreement",
        rule=f"Where {NEEDED} callers must agree, an outage gets at most half of the attempts that it gets where each "
        f"caller finds out for itself; {NEEDED - 1} callers that are wrong cost the others nothing, and {NEEDED} that "
        "never stop being wrong at most a quarter of their calls.",
        setup=f"2 instances. Outage: {_MANY} callers with {_SELDOM_PER_S / _MANY:g} calls a second each, by chance, "
        f"where a breaker judges from 20 calls in 10 s on; the endpoint fails for all from second {BEGINS_S:g} to "
        f"{ENDS_S:g}. Then {_FEW} callers with {_OFTEN_PER_S / _FEW:g} a second each, for some of which it fails for "
        f"ever. Seed {seed}.",
        head=("", "calls meanwhile", "attempted", "failed afterwards, or in vain"),
        rows=rows,
        remark="Callers with few calls have nothing to judge by, mostly; those few that had a busy moment tell the "
        "others. Whose circuit was open for longer also waits longer afterwards, until its own tries go well: "
        "`maxOpen` bounds that. Callers that agree about what is their own affair open the circuits of the others, "
        "whose own tries close them, and once in each window again.",
        panels=(
            Panel("Attempts a second (outage)", "seconds", lines),
            Panel("Refused calls a second of those for whom it is well", "seconds", failed),
        ),
        policies=[("Each for itself", _ALONE), ("With verdicts", _TOGETHER)],
    )
