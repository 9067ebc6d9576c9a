"""Policies in folders: the ready ones load, and a watched folder is followed whatever editors and mounts do to it."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import jsonschema
import pytest

from nats_mesh.errors import PolicyError
from nats_mesh.policy import PolicyFolder, PolicySet, files, json_schema, load_folder, parse
from nats_mesh.policy.decode import decode
from nats_mesh.policy.problems import Problems
from nats_mesh.policy.reader import read
from nats_mesh.policy.rollout_parts import Rollout
from nats_mesh.policy.schema import Destination, Route
from tests.harness import eventually
from tests.tools import ROOT

READY = sorted((ROOT / "policies").glob("*.yaml"))


def policy(timeout: str = "1s", *, name: str = "orders", comment: str = "") -> str:
    """A policy for one service."""
    return (
        f"{comment}apiVersion: mesh/v1\nkind: Destination\nmetadata: {{name: {name}}}\n"
        f"spec: {{target: {{service: {name}}}, timeout: {timeout}}}\n"
    )


def timeout_of(policies: PolicySet, service: str = "orders") -> float | None:
    """What calls of ``service`` get."""
    return policies.outbound(service, "get", "web").timeout_s


# ---------------------------------------------------------------- the ready ones


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_policy_loads(path: Path) -> None:
    """Each begins with a comment that says what it is for, is valid, says something, and fits the JSON Schema."""
    content = path.read_bytes()
    assert content.startswith(b"# ")
    policies = PolicySet.of(parse(content, file=str(path)))
    assert len(policies) > 0
    for each in policies.policies:
        target = each.target
        assert target
        service, endpoints, subset = target.service, target.endpoints or ["any"], target.subset or ""
        assert isinstance(service, str)
        sources = {
            **policies.outbound(service, endpoints[0], "web", subset=subset).sources,
            **policies.inbound(service, endpoints[0]).sources,
            **policies.telemetry(service, endpoints[0]).sources,
        }
        said = any(source.startswith(f"{each.name} ({path}:") for source in sources.values())
        # Where calls go, and which selections of instances there are, is no value of a single call.
        routed = isinstance(each.document, Route) and policies.outbound(service, endpoints[0], "web").routing
        named = isinstance(each.document, Destination) and policies.subsets(service)
        assert said or routed or named or isinstance(each.document, Rollout)
    validator = jsonschema.Draft202012Validator(json_schema())
    for node in read(content, path.name, Problems()):
        validator.validate(node.plain())


def test_all_ready_policies_load_together() -> None:
    """They do not contradict each other, and the README names every one of them."""
    policies = load_folder(ROOT / "policies")
    assert {each.file for each in policies.policies} == {str(path) for path in READY}
    assert policies.outbound("catalog", "get", "web").retry.attempts == 3
    assert policies.outbound("orders", "export", "web").timeout_s == 120.0
    assert [
        getattr(policies.inbound("orders", name).concurrency, "limit", None) for name in ("place", "export")
    ] == [64, 2]
    listed = re.findall(r"\]\((\S+\.yaml)\)", (ROOT / "policies" / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [path.name for path in READY]


def test_the_examples_of_the_documentation_load() -> None:
    """What docs/policies.md shows is valid."""
    blocks = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / "policies.md").read_text(encoding="utf-8"), re.S | re.M
    )
    assert [len(PolicySet.of(parse(block))) for block in blocks] == [1]


# ---------------------------------------------------------------- reading a folder


def test_a_folder_is_read_with_those_below_it(tmp_path: Path) -> None:
    """YAML and JSON in the folder and below it count; editors' files, hidden ones and other names do not."""
    (tmp_path / "a.yaml").write_text(policy(name="a"))
    (tmp_path / "below" / "deeper").mkdir(parents=True)
    (tmp_path / "below" / "b.yml").write_text(policy(name="b"))
    (tmp_path / "below" / "deeper" / "c.json").write_text(
        '{"apiVersion": "mesh/v1", "kind": "Destination", "metadata": {"name": "c"}, "spec": {}}'
    )
    for name in (
        ".a.yaml.swp",
        ".#a.yaml",
        "a.yaml~",
        "#a.yaml#",
        "~a.yaml",
        "4913",
        "a.yaml.tmp",
        "README.md",
    ):
        (tmp_path / name).write_text("no policy: [")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "d.yaml").write_text("no policy: [")
    assert [each.name for each in load_folder(tmp_path).policies] == [
        "Destination/a",
        "Destination/b",
        "Destination/c",
    ]


def test_all_mistakes_of_a_folder_are_reported(tmp_path: Path) -> None:
    """Every mistake in every file, and what is wrong between files, in one error."""
    (tmp_path / "a.yaml").write_text(policy("1") + "---\n" + policy(name="fine"))
    (tmp_path / "b.yaml").write_text("kind: [\n")
    (tmp_path / "c.yaml").write_text(policy(name="twin"))
    (tmp_path / "d.yaml").write_text(policy(name="twin"))
    (tmp_path / "e.yaml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "f.yaml")
    with pytest.raises(PolicyError) as caught:
        load_folder(tmp_path)
    shown = [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]
    assert [text[:40] for text in shown] == [
        "a.yaml:4: spec.timeout: must be a durati", "b.yaml:2: is no valid YAML: while parsin",
        "d.yaml:1: spec.target: Destination/twin ", "d.yaml:3: metadata.name: Destination/twi",
        "e.yaml: cannot be read: No such file or ", "f.yaml: is no regular file",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "there is no such folder"), ("pipe", "is neither a folder nor a file")],
)
def test_a_folder_that_is_none_is_said(tmp_path: Path, name: str, message: str) -> None:
    """A clear error before the start."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PolicyError, match=f"{name}: {message}"):
        load_folder(tmp_path / name)


def test_one_file_may_stand_for_a_folder(tmp_path: Path) -> None:
    """Who names a file means that file, whatever it is called, and nothing beside it."""
    for name in ("a", "b.yaml"):
        (tmp_path / name).write_text(policy(name=name[0]))
    assert [each.name for each in load_folder(tmp_path / "a").policies] == ["Destination/a"]


def test_a_folder_has_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that leads back, too many files, too much in them: refused, with the limit."""
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(PolicyError, match="nested more than 8 deep; does a link lead back"):
        load_folder(tmp_path)
    (tmp_path / "loop").unlink()
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(policy(name=name))
    for limit, message in {
        "MAX_FILES": "more than 1 files",
        "MAX_TOTAL": "MiB of policies",
        "MAX_POLICIES": "more than 1 policies",
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(files, limit, 1)
            with pytest.raises(PolicyError, match=message):
                load_folder(tmp_path)
    assert len(load_folder(tmp_path)) == 2


def test_a_namespace_and_a_set_before(tmp_path: Path) -> None:
    """Only the policies of the own namespace hold, and what did not change keeps its object."""
    (tmp_path / "a.yaml").write_text(
        policy("1s")
        + "---\n"
        + policy("9s", name="b").replace("name: b}\n", "name: b, namespace: prod}\n", 1)
    )
    first = load_folder(tmp_path)
    rules = first.outbound("orders", "get", "web")
    assert [timeout_of(first, "b"), timeout_of(load_folder(tmp_path, namespace="prod"), "b")] == [None, 9.0]
    assert load_folder(tmp_path, before=first).outbound("orders", "get", "web") is rules


# ---------------------------------------------------------------- watching a folder


class Watched:
    """A folder under watch, and what came of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = PolicyFolder(path, poll_s=0.01, settle_s=0.01)
        self.changes: list[PolicySet] = []
        self.rejections: list[str] = []
        self.refusing: Exception | None = None
        self.looks = 0
        self.tried = 0

    def on_change(self, policies: PolicySet) -> None:
        self.tried += 1
        if self.refusing is not None:
            raise self.refusing
        self.changes.append(policies)

    def on_reject(self, error: Exception) -> None:
        self.rejections.append(str(error).removeprefix(f"{self.path}/"))

    async def became(self, changes: int, rejections: int) -> None:
        """Return when there were so many changes and rejections, and as many still after more looks."""
        await eventually(
            lambda: (len(self.changes), len(self.rejections)) == (changes, rejections), lambda: vars(self)
        )
        seen = self.looks
        await eventually(lambda: self.looks > seen + 6)
        assert (len(self.changes), len(self.rejections)) == (changes, rejections)


@pytest.fixture
async def watched(
    tmp_path: Path, anyio_backend: object, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Watched]:
    """A folder with one policy (1 s), loaded and watched."""
    path = tmp_path / "policies"
    path.mkdir()
    (path / "orders.yaml").write_text(policy("1s"))
    async with _watching(path, monkeypatch) as watched:
        yield watched


@asynccontextmanager
async def _watching(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, load: bool = True
) -> AsyncIterator[Watched]:
    watched = Watched(path)
    look = files._look

    def counted(path: str) -> Any:
        watched.looks += 1
        return look(path)

    monkeypatch.setattr(files, "_look", counted)
    if load:
        watched.folder.load()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watched.folder.watch, watched.on_change, watched.on_reject)
            yield watched
            tasks.cancel_scope.cancel()


def replace(path: Path, text: str) -> None:
    """Write a file as most editors do: beside it, then renamed over it."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.rename(path)


@pytest.mark.anyio
async def test_a_change_is_taken_once(watched: Watched) -> None:
    """What was loaded is no change; a new content is one, written in place or renamed over it, and counts once."""
    await watched.became(0, 0)
    (watched.path / "orders.yaml").write_text(policy("2s"))
    await watched.became(1, 0)
    replace(watched.path / "orders.yaml", policy("3s"))
    await watched.became(2, 0)
    (watched.path / "more.yaml").write_text(policy(name="more"))
    await watched.became(3, 0)
    (watched.path / "more.yaml").unlink()
    await watched.became(4, 0)
    assert [timeout_of(each) for each in watched.changes] == [2.0, 3.0, 3.0, 3.0]
    assert [len(each) for each in watched.changes] == [1, 1, 2, 1]
    assert watched.folder.current is watched.changes[-1]


@pytest.mark.anyio
async def test_what_a_change_does_not_concern_keeps_its_object(watched: Watched) -> None:
    """Sets follow each other: the rules of a target whose policies did not change are the very same."""
    rules = watched.folder.current.outbound("orders", "get", "web")
    (watched.path / "more.yaml").write_text(policy(name="more"))
    replace(watched.path / "orders.yaml", policy("1s", comment="# moved by a line\n"))
    await eventually(lambda: watched.changes and len(watched.changes[-1]) == 2)
    assert watched.changes[-1].outbound("orders", "get", "web") is rules


@pytest.mark.anyio
async def test_a_touched_file_is_no_change(watched: Watched) -> None:
    """The same content, written anew, concerns nobody."""
    replace(watched.path / "orders.yaml", policy("1s"))
    os.utime(watched.path / "orders.yaml", (1, 1))
    await watched.became(0, 0)


@pytest.mark.anyio
async def test_a_mistake_is_reported_once_and_the_last_good_stays(watched: Watched) -> None:
    """A rejection comes once per content, nothing of the files is taken, and the way back to the good is told."""
    good = watched.folder.current
    (watched.path / "more.yaml").write_text(policy(name="more"))
    replace(watched.path / "orders.yaml", policy("2"))
    await eventually(lambda: watched.rejections)
    assert watched.folder.current.outbound("orders", "get", "web") is good.outbound("orders", "get", "web")
    changes = len(watched.changes)  # the new file may have been seen alone
    await watched.became(changes, 1)
    assert watched.rejections[0].startswith("orders.yaml:4: spec.timeout: must be a duration")
    replace(watched.path / "orders.yaml", policy("2"))
    await watched.became(changes, 1)
    replace(watched.path / "orders.yaml", policy("3"))
    await watched.became(changes, 2)
    (watched.path / "more.yaml").unlink()
    await watched.became(changes, 3)
    replace(watched.path / "orders.yaml", policy("1s"))
    await watched.became(changes + 1, 3)
    assert timeout_of(watched.changes[-1]) == 1.0


@pytest.mark.anyio
async def test_the_good_that_comes_back_is_told_although_nothing_changed(watched: Watched) -> None:
    """After a rejection, the very content that is in effect is a change again: what was wrong is over."""
    good = watched.folder.current
    replace(watched.path / "orders.yaml", "oh: [")
    await watched.became(0, 1)
    replace(watched.path / "orders.yaml", policy("1s"))
    await watched.became(1, 1)
    assert watched.changes == [good]


@pytest.mark.anyio
async def test_a_folder_that_vanishes_keeps_the_last_good(watched: Watched) -> None:
    """The policies stay in effect, the loss is reported once, and the folder is followed again when it is back."""
    away = watched.path.with_name("away")
    watched.path.rename(away)
    await watched.became(0, 1)
    assert watched.rejections == [f"{watched.path}: there is no such folder or file"]
    assert timeout_of(watched.folder.current) == 1.0
    (away / "orders.yaml").write_text(policy("2s"))
    away.rename(watched.path)
    await watched.became(1, 1)
    assert timeout_of(watched.changes[0]) == 2.0


@pytest.mark.anyio
async def test_an_empty_folder_is_an_empty_set(watched: Watched) -> None:
    """Who removes every policy means it."""
    (watched.path / "orders.yaml").unlink()
    await watched.became(1, 0)
    assert timeout_of(watched.changes[0]) is None


@pytest.mark.anyio
async def test_a_config_map_is_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes swaps one link; files of the old and of the new content are never mixed."""
    path = tmp_path / "mounted"
    path.mkdir()

    def publish(version: int) -> None:
        data = path / f"..v{version}"
        data.mkdir()
        for name in ("a", "b"):
            (data / f"{name}.yaml").write_text(policy(f"{version}s", name=name))
        (path / "..data.tmp").symlink_to(data.name)
        (path / "..data.tmp").rename(path / "..data")

    publish(1)
    for name in ("a", "b"):
        (path / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
    async with _watching(path, monkeypatch) as watched:
        for version in range(2, 12):
            publish(version)
            await eventually(lambda: watched.changes and timeout_of(watched.changes[-1], "a") == version)  # noqa: B023
    assert all(timeout_of(each, "a") == timeout_of(each, "b") for each in watched.changes)
    assert watched.rejections == []


@pytest.mark.anyio
async def test_a_change_while_reading_is_not_taken_for_the_whole(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the files change between looking and reading, they are read again: half of a change never counts."""
    (watched.path / "b.yaml").write_text(policy("1s", name="b"))
    await watched.became(1, 0)
    reading = files._read
    meddled = False

    def meddling(stamps: dict[str, tuple[int, ...]]) -> Any:
        nonlocal meddled
        content = reading(stamps)
        if not meddled and b"2s" in b"".join(part for part in content.values() if isinstance(part, bytes)):
            meddled = True
            replace(watched.path / "b.yaml", policy("2s", name="b"))
        return content

    monkeypatch.setattr(files, "_read", meddling)
    replace(watched.path / "orders.yaml", policy("2s"))
    await watched.became(2, 0)
    assert meddled
    assert [timeout_of(watched.changes[-1], name) for name in ("orders", "b")] == [2.0, 2.0]


@pytest.mark.anyio
async def test_files_that_never_rest_are_reported(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that changes all the time is not waited for in silence."""
    look = files._look
    monkeypatch.setattr(files, "_look", lambda path: {**look(path), "log.yaml": (watched.looks,)})
    await eventually(lambda: watched.rejections)
    assert watched.rejections == [f"{watched.path}: changes all the time; its policies are not taken"]
    assert watched.changes == []


@pytest.mark.anyio
async def test_a_set_that_cannot_be_applied_is_rejected(watched: Watched) -> None:
    """Where whoever applies a set raises, the last good stays; the same content is not tried again, the next one
    is."""
    watched.refusing = RuntimeError("no room")
    for _ in range(2):
        replace(watched.path / "orders.yaml", policy("2s"))
        await watched.became(0, 1)
    assert watched.tried == 1
    assert watched.rejections == ["no room"]
    assert timeout_of(watched.folder.current) == 1.0
    watched.refusing = None
    replace(watched.path / "orders.yaml", policy("3s"))
    await watched.became(1, 1)
    assert timeout_of(watched.folder.current) == 3.0


@pytest.mark.anyio
async def test_watching_without_loading_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch alone reports what it finds first, also a folder that is not there yet."""
    path = tmp_path / "later"
    async with _watching(path, monkeypatch, load=False) as watched:
        await watched.became(0, 1)
        path.mkdir()
        (path / "orders.yaml").write_text(policy("1s"))
        await eventually(lambda: watched.changes and timeout_of(watched.changes[-1]) == 1.0)


@pytest.mark.anyio
async def test_only_what_changed_is_decoded_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose content is known is not decoded a second time, so that a change costs what it changes."""
    decoded: list[str] = []

    def noting(content: bytes, file: str, problems: Problems) -> Any:
        decoded.append(os.path.basename(file))
        return decode(content, file, problems)

    monkeypatch.setattr(files, "decode", noting)
    (watched.path / "more.yaml").write_text(policy(name="more"))
    await watched.became(1, 0)
    assert decoded == ["more.yaml"]
