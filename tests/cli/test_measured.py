"""What was measured has one name everywhere, with its unit, and an estimate has no more digits than it is worth."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh_cli.dashboard import figures
from nats_mesh_cli.measured import capacity_record, recent_record
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import table, used_text
from nats_mesh_cli.promised import Promised
from nats_mesh_cli.stat_records import edge_records, service_records
from nats_mesh_cli.stat_table import edges_table, stat_table
from nats_mesh_cli.top.drill import lines_of
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.once import document, report
from nats_mesh_cli.top.words import retry_cell
from tests.cli.top_data import ALERTED, DATA, MESH
from tests.snapshots import snapshot

FULL = Data(mesh=snapshot(8), head=(1, 42))
PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")
#: What `top` alone has.
MORE = {"recent", "trend"}


@pytest.mark.parametrize("data", [DATA, ALERTED, FULL], ids=["trouble", "alerts", "large"])
def test_top_says_what_stat_says(data: Data) -> None:
    """Services, endpoints, versions and edges are the same records in both, field by field; `top` only has more."""
    found = document(data)
    promised = data.promised
    for name, told in (
        ("services", service_records(data.mesh, "service", promised=promised)),
        ("endpoints", service_records(data.mesh, "endpoint")),
        ("versions", service_records(data.mesh, "version")),
        ("edges", edge_records(data.mesh, "service")),
    ):
        more = MORE | ({"endpoints"} if name == "edges" else set())
        assert [{k: v for k, v in each.items() if k not in more} for each in found[name]] == told
    by_endpoint = [
        {k: v for k, v in each.items() if k not in ("source", "service", "reporter")}
        for each in edge_records(data.mesh, "endpoint")
    ]
    assert [each for edge in found["edges"] for each in edge["endpoints"]] == by_endpoint


def names(value: Any) -> set[str]:
    """Every name of a field in a document, but for dictionaries by what they count."""
    if isinstance(value, list | tuple):
        return {name for each in value for name in names(each)}
    if not isinstance(value, dict):
        return set()
    counted = ("statuses", "flags", "versions", "breakers", "labels", "retries", "numbers")
    own = set(value)
    return own | {n for key, each in value.items() if key not in counted for n in names(each)}


def test_every_field_is_documented() -> None:
    """All that stands in either document is named on the page, but for what other commands have, too."""
    found = msgspec.json.decode(report(FULL, Format.JSON))
    own = {key: found[key] for key in ("mesh", "services", "endpoints", "versions", "edges", "members")}
    said = set(re.findall(r"`([a-z0-9_]+)`", PAGE))
    assert names(own) - said == set()
    assert {"red", "id", "name", "limit", "queue", "rates"} & names(own) == set()


def test_the_longest_durations_have_no_bound() -> None:
    """JSON has no infinity; null stands for it, as in the browser's page."""
    red = MESH.red
    figures = replace(red.recent, buckets=((0.004, 7), (math.inf, 2)))
    told = recent_record(replace(red, recent=figures))
    assert told["histogram"] == [{"le_s": 0.004, "count": 7}, {"le_s": None, "count": 2}]


@pytest.mark.parametrize(
    ("headroom_per_s", "text"),
    [
        (None, "-"),
        (0.0, "0/s"),
        (3.14159, "3.1/s"),
        (72.49, "72/s"),
        (710.4, "710/s"),
        (7234.56, "7.2k/s"),
        (1.23e6, "1.2M/s"),
    ],
)
def test_headroom_is_an_estimate(headroom_per_s: float | None, text: str) -> None:
    """Two or three digits for people, the same ones in `stat` and in `top`; what was computed for programs."""
    first = MESH.services[0]
    capacity = replace(first.capacity, headroom_per_s=headroom_per_s)
    mesh: Snapshot = replace(MESH, services=(replace(first, capacity=capacity),))
    shown = stat_table("service", ())
    head, row = table(shown.records(mesh, Promised()), shown.columns, wide=True).split("\n")
    end = head.index("HEADROOM") + len("HEADROOM")
    assert row[:end].split()[-1] == text
    assert capacity_record(capacity)["headroom_per_s"] == headroom_per_s
    page = "\n".join(
        "".join(cell.text for cell in line) for line in lines_of(first.name, Data(mesh=mesh), 120)
    )
    assert (f"room for {text} more" in page) == (headroom_per_s is not None)


@pytest.mark.parametrize(
    ("share", "retries", "used"),
    [
        (0.0, "0", "0%"),
        (0.0004, "<0.1", "<0.1%"),
        (0.004, "0.4", "0.4%"),
        (0.0812, "8.1", "8.1%"),
        (0.9999, ">99.9", ">99.9%"),
        (1.0, "100", "100%"),
    ],
)
def test_what_is_some_is_not_shown_as_none(share: float, retries: str, used: str) -> None:
    """Repetitions and how much of a limit is used, in `stat`, `edges`, `top` and in the browser: rounding makes no
    small part nothing, and no large one all."""
    first, edge = MESH.services[0], MESH.edges[0]
    capacity = replace(first.capacity, utilisation=share)
    red = replace(edge.red, retry_share=share)
    mesh: Snapshot = replace(
        MESH, services=(replace(first, capacity=capacity, red=red),), edges=(replace(edge, red=red),)
    )
    shown = stat_table("service", ())
    (record,) = shown.records(mesh, Promised())
    (column,) = (each for each in shown.columns if each.header == "USED")
    assert column.text(record) == used
    shown = edges_table("service", ())
    (record,) = shown.records(mesh, Promised())
    (column,) = (each for each in shown.columns if each.header == "RETRY%")
    assert column.text(record) == retries
    assert retry_cell(share).text.removeprefix("▲ ") == ("-" if not share else retries)
    told = figures.red_of(red, 0.0)["retry_share"], figures.capacity_of(capacity)["utilisation"]
    assert all((value > 0.0) == (share > 0.0) for value in told)


def test_more_than_all_of_a_limit_is_said() -> None:
    """An average of what ran may be above a limit that has been lowered meanwhile."""
    assert used_text(1.2) == "120.0%"
