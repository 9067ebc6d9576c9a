"""What came of trying policies on recorded calls, for people: readable at 80 columns, pure."""

from __future__ import annotations

from collections.abc import Iterator

from nats_mesh.core.shares import share_text
from nats_mesh.policy.whatif.replay_report import Example, Facet, Group, Replay
from nats_mesh_cli.output import counted, paint

__all__ = ["replay_lines"]

_TITLES: dict[Facet, str] = {
    "access": "let in or denied",
    "limit": "limited",
    "abort": "failed on purpose",
    "route": "routed",
    "timeout": "out of time",
    "attempt-timeout": "given up before an attempt ended",
    "delay": "delayed on purpose",
    "mirror": "copied",
    "setting": "under other values (no recorded call shows what that does)",
    "unknown": "nobody can tell",
}
_BAD = ("access", "limit", "abort", "timeout")
#: How many groups of a kind and examples of a group are shown where not everything is.
_GROUPS, _EXAMPLES = 8, 1


def replay_lines(tried: Replay, *, color: bool = False, wide: bool = False) -> Iterator[str]:
    """The whole report; ``wide``: every group and every example."""
    yield from _head(tried, color)
    for facet, title in _TITLES.items():
        groups = [group for group in tried.groups if group.facet == facet]
        if not groups:
            continue
        yield ""
        yield paint(title, "bold", color)
        shown = groups if wide else groups[:_GROUPS]
        for group in shown:
            yield from _group(group, color, wide)
        if len(shown) < len(groups):
            yield f"  … and {len(groups) - len(shown)} more (-o wide shows all)"
    if tried.not_evaluated:
        yield ""
        yield paint("not evaluated: nothing in this version applies it", "bold", color)
        for each in tried.not_evaluated:
            where = f" ({each.place})" if each.place else ""
            yield f"  {each.policy}{where}: {each.path}"
    if tried.notes:
        yield ""
        for note in tried.notes:
            yield paint(f"note: {note}", "warn", color)


def _head(tried: Replay, color: bool) -> Iterator[str]:
    others = [
        counted(count, one, several)
        for count, one, several in ((tried.retries, "retry", "retries"), (tried.mirrors, "copy", "copies"))
        if count
    ]
    beside = f" ({' and '.join(others)} beside them)" if others else ""
    yield f"{counted(tried.calls, 'recorded call')}{beside}"
    if tried.same:
        yield paint("all of them would be handled as before", "ok", color)
        return
    text = f"{_count(tried.affected)} of them ({_share(tried.affected_share)}) would be handled differently"
    yield paint(text, "warn" if tried.affected else "", color)
    if tried.unknown:
        yield paint(f"of {tried.unknown} nobody can tell", "warn", color)


def _group(group: Group, color: bool, wide: bool) -> Iterator[str]:
    count = f"{'' if group.exact else 'about '}{_count(group.calls)} ({_share(group.share)})"
    style = "bad" if group.facet in _BAD else "warn"
    if group.facet == "unknown":
        change = group.before
    elif group.facet == "route":
        change = f"{group.before} → {group.after}"
    else:
        change = f"{group.target}: {group.before} → {group.after}"
    yield f"  {paint(count, style, color)}  {change}"
    for policy in group.policies:
        yield f"      {paint(f'by {policy}', 'dim', color)}"
    for example in group.examples if wide else group.examples[:_EXAMPLES]:
        yield f"      {paint(f'such as {_example(example)}', 'dim', color)}"


def _example(example: Example) -> str:
    trace = f", trace {example.trace}" if example.trace else ""
    return f"{example.caller} → {example.service}.{example.endpoint}{trace}"


def _count(calls: float) -> str:
    return f"{calls:.0f}" if abs(calls - round(calls)) < 0.05 else f"{calls:.1f}"


def _share(share: float) -> str:
    return share_text(round(share, 2) if share >= 0.1 else share, 2)
