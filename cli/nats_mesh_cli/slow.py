"""``slow``: the calls that took longer than policies call normal, the worst first, and where their time went."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import anyio
import msgspec
from msgspec import UNSET

from nats_mesh import Mesh
from nats_mesh.core.slowness import uncovered
from nats_mesh.errors import CodecError
from nats_mesh.model import check_name
from nats_mesh.policy import PolicySet
from nats_mesh.policy.telemetry_parts import Telemetry
from nats_mesh.telemetry.leasing import hold_lease
from nats_mesh.telemetry.slow import INJECTED, STOOD_STILL, SlowCall, decode_slow, decode_slow_answer
from nats_mesh.wire.subjects import ALL
from nats_mesh.wire.vouching import member_of
from nats_mesh_cli.bus import CALLER, QUESTION_S, ask, connected
from nats_mesh_cli.errors import CliError, did_you_mean
from nats_mesh_cli.instants import instant, shown_time
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Column, Out, Record, counted, millis
from nats_mesh_cli.policies import live_policies
from nats_mesh_cli.present import must_be_there
from nats_mesh_cli.rows import Rows
from nats_mesh_cli.slow_learning import Learning
from nats_mesh_cli.trouble import status_level

__all__ = ["BY", "Heard", "ago", "ranked", "record_of", "slow", "where_it_went"]

#: What they can be ranked by.
BY = ("time", "excess")
#: How many calls are kept while they are shown one by one.
_MAX_WAITING = 10_000
_SHORT = 8
#: So many of the parts of a call are named in a table.
_PARTS = 5

_COLUMNS = (
    Column("TIME", lambda r: shown_time(str(r["at"])), drop=9, brief=lambda r: shown_time(str(r["at"]))[11:]),
    Column("ENDPOINT", lambda r: f"{r['service']}.{r['endpoint']}", style=lambda _: "name", drop=0),
    Column("CALLER", lambda r: str(r["caller"]), drop=15),
    Column("STATUS", lambda r: str(r["status"]), style=lambda r: status_level(r["status"]), drop=3),
    Column("TOOK", lambda r: millis(r["duration_s"]), right=True, drop=2),
    Column("×P99", lambda r: _times(r["times_p99"]), right=True, drop=12),
    Column("FROM", lambda r: millis(r["threshold_s"]), wide=True, right=True, drop=45),
    Column("INSTANCE", lambda r: str(r["instance"])[:_SHORT], wide=True, drop=20),
    Column("VERSION", lambda r: str(r["version"]), wide=True, drop=30),
    Column("ATTEMPT", lambda r: str(r["attempt"]), wide=True, right=True, drop=40),
    Column("POLICY", lambda r: str(r["policy"]), wide=True, drop=25),
    Column("TRACE", lambda r: str(r["trace_id"]), wide=True, drop=50),
    Column("WHERE THE TIME WENT", lambda r: where_it_went(r), drop=4, short=16),
)
#: What a column takes at least where rows come one by one.
_LEAST = (24, 20, 10, 8, 8, 6, 8, _SHORT, 7, 7, 12, 32, 0)


def ago(text: str) -> str:
    """An instant, or how long ago: ``-10m``, and ``10m``, too."""
    typed = text.strip()
    if typed[:1].isdigit() and typed[-1:].isalpha() and "T" not in typed.upper():
        typed = f"-{typed}"
    return instant(typed)


def record_of(call: SlowCall) -> Record:
    """A slow call as ``-o json`` shows it; times in seconds, ``times_p99`` how often the endpoint's own p99."""
    return {
        "at": call.at,
        "service": call.service,
        "endpoint": call.endpoint,
        "caller": call.caller,
        "status": call.status,
        "duration_s": call.duration_s,
        "queue_s": call.queue_s,
        "fault_s": call.fault_s,
        "handler_s": call.handler_s,
        "own_s": call.own_s,
        "stood_s": call.stood_s,
        "threshold_s": call.threshold_s,
        "p99_s": call.p99_s,
        "times_p99": None if not call.p99_s else round(call.duration_s / call.p99_s, 2),
        "steps": [msgspec.structs.asdict(step) for step in call.steps],
        "more_steps": call.more,
        "policy": call.policy,
        "attempt": call.attempt,
        "trace_id": call.trace,
        "instance": call.instance,
        "version": call.version,
        "namespace": call.namespace,
        "labels": dict(call.labels),
        "seq": call.seq,
        "missed": call.missed,
    }


def where_it_went(record: Record) -> str:
    """The parts of a call's time, the largest first: its queue, what a fault held it on purpose, the handler itself,
    the calls that this made, without the time in which the process itself stood still."""
    total = record["duration_s"] or 1.0
    parts: list[tuple[float, str]] = [
        (record["queue_s"], "queue"),
        (record["fault_s"], INJECTED),
        (record["own_s"], "itself"),
        (record["stood_s"], STOOD_STILL),
    ]
    by_target: dict[str, list[tuple[float, float]]] = {}
    for step in record["steps"]:
        during = step["at_s"], step["at_s"] + max(0.0, step["took_s"] - step["stood_s"])
        by_target.setdefault(step["target"], []).append(during)
    for target, calls in by_target.items():  # those at the same time count once
        took = total - uncovered(0.0, total, calls)
        parts.append((took, target if len(calls) == 1 else f"{len(calls)}× {target}"))
    parts.sort(key=lambda part: -part[0])
    shown = [
        f"{name} {millis(took)} ({round(100 * took / total)}%)"
        for took, name in parts[:_PARTS]
        if took >= 0.005 * total
    ]
    left = len([1 for took, _ in parts[_PARTS:] if took >= 0.005 * total]) + record["more_steps"]
    return ", ".join([*shown, *([f"{left} more"] if left else [])])


def _times(times: float | None) -> str:
    return "-" if times is None else f"{times:.1f}×"


def ranked(records: Sequence[Record], *, by: str, top: int) -> list[Record]:
    """The ``top`` worst: by the time they took, or by how far that is above the endpoint's own p99. Where that is not
    known, a call is not above it, and comes last."""

    def excess(record: Record) -> float:
        times: float | None = record["times_p99"]
        return 0.0 if times is None else times

    key = (lambda r: (-excess(r), -r["duration_s"])) if by == "excess" else lambda r: (-r["duration_s"],)
    return sorted(records, key=key)[:top]


class Heard:
    """What instances told of, each call once. ``ignored`` is what was not believed or could not be read, ``lost`` what
    came faster than it was shown, ``missed`` what instances themselves had no room for."""

    def __init__(self, mesh: Mesh, service: str, endpoint: str, since: str) -> None:
        self.ignored = 0
        self.lost = 0
        self.missed = 0
        self.records: list[Record] = []
        self.learning = Learning(service, endpoint)
        self.news = anyio.Event()
        self._mesh = mesh
        self._service = service
        self._endpoint = endpoint
        self._since = since
        self._seen: dict[tuple[str, str, int, str, float], None] = {}

    def take(self, call: SlowCall) -> None:
        """One call, however often it comes."""
        # Not the number alone: whoever says the next ones in another's name would keep its calls from us.
        key = (call.service, call.instance, call.seq, call.at, call.duration_s)
        if key in self._seen or call.namespace != self._mesh.namespace:
            return
        if (self._service or call.service) != call.service:
            return
        if len(self._seen) >= 5 * _MAX_WAITING:
            self._seen.pop(next(iter(self._seen)))
        self._seen[key] = None
        if (self._endpoint or call.endpoint) != call.endpoint or call.at < self._since:
            return
        self.missed += call.missed
        if len(self.records) >= _MAX_WAITING:
            self.records.pop(0)
            self.lost += 1
        self.records.append(record_of(call))
        self.news.set()

    def taken(self) -> list[Record]:
        """What came since the last time."""
        records, self.records, self.news = self.records, [], anyio.Event()
        return records

    def on_slow(self, subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        """A message on an instance's own subject."""
        whose = member_of(subject, reply, enforced=self._mesh.settings.enforced)
        if whose is None:
            self.ignored += 1
            return
        try:
            self.take(
                decode_slow(payload, service=whose[0], instance=whose[1], namespace=self._mesh.namespace)
            )
        except CodecError:
            self.ignored += 1

    async def ask(self, timeout_s: float) -> None:
        """Ask everybody for what they keep; this is also a lease."""
        want = self._mesh.client.subjects.want("slow", self._service or ALL, self._mesh.name)
        replies = await ask(self._mesh, want, timeout_s=timeout_s, destination="telemetry")
        found: list[SlowCall] = []
        for payload in replies.payloads:
            try:
                answer = decode_slow_answer(
                    payload, service=self._service or None, namespace=self._mesh.namespace
                )
                self.learning.take(answer)
                found += answer.calls
            except CodecError:
                self.ignored += 1
        for call in sorted(found, key=lambda each: (each.at, each.service, each.seq)):
            self.take(call)


async def slow(
    options: Options,
    out: Out,
    target: str | None,
    *,
    since: str | None,
    top: int,
    by: str,
    follow: bool,
    name: str | None,
) -> None:
    """Show what instances keep, the worst first; with ``follow`` go on and show each as it comes."""
    fmt = options.format
    service, _, endpoint = (target or "").partition(".")
    if service:
        check_name("service", service)
    if endpoint:
        check_name("endpoint", endpoint)
    if by not in BY:
        hint = did_you_mean(by, BY) or f"there are: {', '.join(BY)}"
        raise CliError(f"slow: calls cannot be ranked by {by!r}", hint=hint)
    if fmt is Format.NAME:
        raise CliError("slow: a call has no name", hint="use -o json, jsonl, yaml, or leave -o out")
    if follow and fmt in (Format.JSON, Format.YAML):
        raise CliError(f"-f goes on for ever, which -o {fmt} cannot", hint="use -o jsonl: one call a line")
    async with connected(options, name or CALLER) as mesh:
        heard = Heard(mesh, service, endpoint, "" if since is None else ago(since))
        if follow:
            await _follow(mesh, heard, options, out, service, endpoint)
            return
        await heard.ask(options.timeout_s or QUESTION_S)
        records = ranked(heard.taken(), by=by, top=top)
        nothing = ""
        if not records:
            await must_be_there(mesh, options, out, service, endpoint)
            nothing = "" if fmt.structured else await _nothing(options, mesh, service, endpoint)
    out.rows(records, _COLUMNS, fmt, name=str, nothing=nothing)
    _say_learning(heard, out)
    _complain(heard, out)


async def _nothing(options: Options, mesh: Mesh, service: str, endpoint: str) -> str:
    """Why there is nothing to show."""
    policies, _ = await live_policies(options, mesh)
    if _asked(policies, service, endpoint):
        return "no call was slow lately, as far as any instance here remembers"
    return (
        "no policy here says when a call is slow, so no instance keeps any; a Telemetry policy does: 'slow: 500ms', or "
        "'slow: {timesP99: 3}'"
    )


def _asked(policies: PolicySet, service: str, endpoint: str) -> bool:
    """Whether any policy says from when on calls of it are slow."""
    if service and endpoint:
        return policies.telemetry(service, endpoint).slow is not None
    for policy in policies.policies:
        if not isinstance(policy.document, Telemetry):
            continue
        target, said = policy.target, policy.document.spec.slow
        about = "" if target is UNSET or target.service is UNSET else target.service
        if said is not UNSET and said != "off" and (not service or about in ("", service)):
            return True
    return False


def _say_learning(heard: Heard, out: Out) -> None:
    if note := heard.learning.note():
        out.note(note, "dim")


def _complain(heard: Heard, out: Out) -> None:
    if heard.missed:
        out.note(
            f"note: {counted(heard.missed, 'more slow call')} found no room at their instances",
            "warn",
        )
    if heard.lost:
        out.note(f"note: {counted(heard.lost, 'call')} came faster than they could be shown", "warn")
    if heard.ignored:
        text = "messages were no slow calls, or not their publisher's, and are left out"
        out.note(f"note: {heard.ignored} {text}", "warn")


async def _follow(mesh: Mesh, heard: Heard, options: Options, out: Out, service: str, endpoint: str) -> None:
    client = mesh.client
    await must_be_there(mesh, options, out, service, endpoint, later=True)
    client.transport.subscribe(client.subjects.telemetry_of("slow", service or "*"), heard.on_slow)
    await client.transport.fence()
    await heard.ask(options.timeout_s or QUESTION_S)
    _say_learning(heard, out)
    want = client.subjects.want("slow", service or ALL, mesh.name)
    rows = Rows(out, options.format, _COLUMNS, _LEAST)
    try:
        async with anyio.create_task_group() as tasks:
            lease = partial(hold_lease, want, transport=client.transport, mux=client.mux)
            tasks.start_soon(lease)
            while True:
                rows.show(heard.taken())
                await heard.news.wait()
    finally:
        _complain(heard, out)
