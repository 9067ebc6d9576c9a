"""What changed: between two looks at the mesh, at files, and what a supervisor makes of an end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nats_mesh.core.members import Health, Instance
from nats_mesh.core.registry import Registry
from nats_mesh_cli import reload
from nats_mesh_cli.catalog import announcement_of, endpoint_records, instance_record
from nats_mesh_cli.errors import CliError
from nats_mesh_cli.live import as_info, difference
from nats_mesh_cli.supervisor import how_it_ended, restart_delay_s
from nats_mesh_cli.up import ports_for
from tests.cli.infos import mesh_info

_Records = dict[str, dict[str, Any]]


def test_load_and_age_are_no_change() -> None:
    """Only what people wait for is a change; the record says which fields."""
    before: _Records = {"a": {"state": "ready", "in_flight": 1, "age_s": 1.0}, "b": {"state": "ready"}}
    after: _Records = {"a": {"state": "ready", "in_flight": 9, "age_s": 2.0}, "c": {"state": "ready"}}
    assert difference(before, after) == [("added", {"state": "ready"}), ("removed", {"state": "ready"})]
    changed: _Records = {"a": {"state": "draining", "in_flight": 1, "age_s": 1.0}, "b": {"state": "ready"}}
    assert difference(before, changed) == [("changed", {**changed["a"], "fields": ["state"]})]
    assert difference(before, before) == []


def heard() -> Instance:
    """An instance as a registry knows it that learned of it by an answer."""
    announcement = announcement_of(mesh_info(labels={"zone": "eu"}))
    assert announcement is not None
    registry = Registry()
    registry.apply(announcement, 1.0)
    return registry.instances()[0]


def test_presence_reads_as_an_answer_does() -> None:
    """What was announced gives the same record as what was answered, schemas aside."""
    announced = instance_record(as_info(heard(), None), 0.0)
    answered = instance_record(mesh_info(labels={"zone": "eu"}), 0.0)
    assert announced == answered
    (endpoint,) = endpoint_records([as_info(heard(), None)])
    assert (endpoint["timeout_ms"], endpoint["idempotent"], endpoint["request"]) == (2000, True, None)
    (known,) = endpoint_records([as_info(heard(), mesh_info())])
    assert known["request"] == "integer"


def test_a_suspect_is_shown_as_one() -> None:
    """Who misses beats is not shown as ready."""
    suspect = msgspec.structs.replace(heard(), health=Health.SUSPECT)
    assert instance_record(as_info(suspect, mesh_info()), 0.0)["state"] == "suspect"


def test_python_files_that_change_are_noticed(tmp_path: Path) -> None:
    """Changed, new and removed .py files; hidden folders, caches and other files are not looked at."""
    for name in ("a.py", "b.py", "c.txt", ".hidden/d.py", "venv/e.py", "sub/f.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1", encoding="utf-8")
    before, more = reload.scan(tmp_path)
    assert sorted(os.path.relpath(p, tmp_path) for p in before) == ["a.py", "b.py", "sub/f.py"]
    assert not more
    (tmp_path / "a.py").write_text("22", encoding="utf-8")
    (tmp_path / "b.py").unlink()
    (tmp_path / "sub/new.py").write_text("3", encoding="utf-8")
    changed = reload.difference(before, reload.scan(tmp_path)[0])
    assert reload.shown(changed, tmp_path) == "a.py, b.py, sub/new.py"
    assert reload.shown([*changed, str(tmp_path / "z.py")], tmp_path).endswith("sub/new.py and 1 more")


def test_looking_at_files_has_a_bound(tmp_path: Path) -> None:
    """A folder with too many files is cut, and says so."""
    for number in range(5):
        (tmp_path / f"m{number}.py").write_text("", encoding="utf-8")
    found, more = reload.scan(tmp_path, limit=3)
    assert (len(found), more) == (3, True)


def test_pauses_between_restarts_double_up_to_a_bound() -> None:
    """0.5 s, 1 s, 2 s … 15 s, however often a worker dies."""
    assert [restart_delay_s(n) for n in (1, 2, 3, 6, 1000)] == [0.5, 1.0, 2.0, 15.0, 15.0]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-signal.SIGKILL, "killed by SIGKILL"),
        (-99, "killed by signal 99"),
    ],
)
def test_an_end_is_told_in_words(code: int, said: str) -> None:
    """Exit codes and signals by name."""
    assert how_it_ended(code) == said


def test_a_cluster_takes_ports_in_a_row() -> None:
    """From --port on; free ones with 0; never beyond the last port."""
    assert ports_for(4222, 3) == [4222, 4223, 4224]
    assert ports_for(0, 2) == [0, 0]
    with pytest.raises(CliError, match="above 65535"):
        ports_for(65_535, 2)
