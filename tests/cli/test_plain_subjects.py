"""Plain subjects that somebody calls are no service: every view says what they are, and in the same words."""

from __future__ import annotations

import msgspec

from nats_mesh.telemetry.series import OTHER, PLAIN
from nats_mesh.telemetry.snapshots import Edge
from nats_mesh_cli.dashboard.document import Picture, document
from nats_mesh_cli.dashboard.service_page import service_document
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.measured import called_text
from nats_mesh_cli.options import Format
from nats_mesh_cli.output import render_list
from nats_mesh_cli.policy_board import Board
from nats_mesh_cli.promised import Promised
from nats_mesh_cli.stat_table import edges_table
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.once import report
from nats_mesh_cli.top.reducing import reduce
from nats_mesh_cli.top.state import start
from nats_mesh_cli.top.view import render
from tests.cli.top_data import MESH

_RED = MESH.edges[0].red
MIXED = msgspec.structs.replace(
    MESH,
    edges=(
        *MESH.edges,
        Edge(source="web", service=PLAIN, reporter="out", red=_RED, endpoints={OTHER: _RED}),
    ),
)


def test_edges_name_them_in_tables_and_keep_the_word_of_the_metrics_in_records() -> None:
    """Of an endpoint there is none to name."""
    for by in ("service", "endpoint"):
        shown = edges_table(by, ["web"])
        records = shown.records(MIXED, Promised())
        assert PLAIN in [each["service"] for each in records]
        text = render_list(records, shown.shown(records), Format.TABLE, name=shown.name)
        assert "plain NATS" in text
        assert PLAIN not in text
        assert OTHER not in text


def test_top_names_them_wherever_an_edge_stands() -> None:
    """In its table, its graph, the pane beneath, the page of the edge, and once; there is nothing to describe."""
    chosen = ("2", "/", *"plain", "enter")
    for keys in (("2",), ("2", "g"), chosen, (*chosen, "enter"), (*chosen, "d")):
        state = start(Data(mesh=MIXED), Size(120, 40))
        for key in keys:
            state = reduce(state, key)
        text = render(state, state.size).plain
        assert "plain NATS" in text, keys
        assert PLAIN not in text, keys
        assert state.wanted is None
    once = report(Data(mesh=MIXED), Format.TABLE)
    assert "web → plain NATS" in once
    assert PLAIN not in once


def test_the_browser_draws_them_as_what_they_are() -> None:
    """A node that is neither a service nor a client, at the end of its edge, and with a page of its own."""
    found = document(MIXED, Picture(), Board(), tls=False)
    name = called_text(PLAIN)
    assert found["services"][name]["kind"] == "plain"
    assert found["edges"][f"web>{name}"]["service"] == name
    page = service_document(MIXED, name)
    assert page is not None
    assert [(each["source"], each["service"]) for each in page["calls"]] == [("web", name)]
    assert not any(PLAIN in each for each in (*found["services"], *found["edges"]))
