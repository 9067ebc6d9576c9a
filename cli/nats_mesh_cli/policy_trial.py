"""``policy test``: hold policies against what files of tests expect of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import msgspec

from nats_mesh.policy import Policy
from nats_mesh.policy.problems import Problems, place
from nats_mesh.policy.trials.expectations import Trial, decode_trials
from nats_mesh.policy.trials.judging import Result, run
from nats_mesh.policy.trials.predict import Oracle
from nats_mesh_cli.errors import FAILED, OK, CliError, one_line
from nats_mesh_cli.options import Format, Options
from nats_mesh_cli.output import Out, Record, dump, paint
from nats_mesh_cli.policy_bus import opened
from nats_mesh_cli.policy_given import contents_of, folder_of, live_policies, policies_in

__all__ = ["render", "test_policies", "trials_in"]


async def test_policies(options: Options, out: Out, paths: Sequence[str]) -> int:
    """Run every test in files and folders; 1 where one fails."""
    trials = trials_in(paths)
    sources = _Sources(options, out)
    results: list[Result] = []
    for trial in trials:
        results += run(trial, await sources.of(trial))
    _show(options, out, results)
    return OK if all(result.good for result in results) else FAILED


def trials_in(paths: Sequence[str]) -> list[Trial]:
    """The tests in files and folders; all that is wrong is one :class:`nats_mesh.PolicyError`."""
    problems = Problems()
    found: list[Trial] = []
    for name, content in contents_of(paths).items():
        found += decode_trials(content, name, problems)
    problems.raise_if_any()
    if not found:
        raise CliError(
            f"there is no PolicyTest in {', '.join(paths)}",
            hint="a test has apiVersion: mesh/v1, kind: PolicyTest, metadata, spec",
        )
    return found


class _Sources:
    """The policies that tests are held against: of ``--policies``, else those a test names, else ``MESH_POLICIES``,
    else the bus. Each is read once."""

    def __init__(self, options: Options, out: Out) -> None:
        self._options = options
        self._out = out
        self._namespace = options.settings().namespace
        self._known: dict[tuple[str, ...], Oracle] = {}

    async def of(self, trial: Trial) -> Oracle:
        """The policies of a test."""
        paths = self._paths(trial)
        said = trial.document.metadata.namespace
        namespace = said if isinstance(said, str) else self._namespace
        key = (namespace, *paths)
        if key not in self._known:
            policies = (
                policies_in(paths, self._out, namespace=namespace) if paths else await self._live(namespace)
            )
            self._known[key] = Oracle(policies, namespace=namespace)
        return self._known[key]

    def _paths(self, trial: Trial) -> tuple[str, ...]:
        """The files that are meant; none for what stands on the bus."""
        if self._options.policies is not None:
            return (self._options.policies,)
        if own := trial.document.spec.policies:
            base = os.path.dirname(trial.file)
            return tuple(os.path.normpath(os.path.join(base, path)) for path in own)
        folder = folder_of(self._options)
        return () if folder is None else (folder,)

    async def _live(self, namespace: str) -> tuple[Policy, ...]:
        async with opened(dataclasses.replace(self._options, namespace=namespace)) as (mesh, store):
            policies, bad = await live_policies(store, self._out, namespace=mesh.namespace)
        if bad:
            raise CliError("the store has documents that cannot be read", code=FAILED)
        return policies


def _show(options: Options, out: Out, results: Sequence[Result]) -> None:
    records = [_record(result) for result in results]
    if options.format is Format.JSONL:
        for record in records:
            out.data(dump(record, Format.JSONL))
    elif options.format.structured:
        out.data(dump(records, options.format, pretty=out.tty))
    elif options.format is Format.NAME:
        for result in results:
            if not result.good:
                out.data(f"{result.test}: {result.case}")
    else:
        for result in results:
            if not result.good or options.format is Format.WIDE:
                out.text(render(result, color=out.color))
    if not options.format.structured:
        failed = sum(not result.good for result in results)
        passed = len(results) - failed
        out.note(
            f"{passed} passed, {failed} failed" if failed else f"{passed} passed", "bad" if failed else "ok"
        )


def _record(result: Result) -> Record:
    plain: dict[str, Any] = msgspec.to_builtins(result)
    return {**plain, "passed": result.good}


def render(result: Result, *, color: bool = False) -> str:
    """One case; of a failing one, what was expected and what was found, and who makes it so."""
    mark = paint("✓", "ok", color) if result.good else paint("✗", "bad", color)
    lines = [f"{mark} {one_line(result.test)}: {one_line(result.case)}  ({place(result.file, result.line)})"]
    for failure in result.failures:
        lines.append(f"  {failure.field} ({place(result.file, failure.line)})")
        lines.append(f"    expected  {one_line(failure.expected)}")
        lines.append(f"    found     {one_line(failure.found)}")
        lines += [f"    by        {one_line(each)}" for each in failure.by]
    return "\n".join(lines)
