"""The pages and pictures of the simulations."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from tests.sim.__main__ import SIMULATIONS
from tests.sim.plot import Line, Panel, svg
from tests.sim.report import RESULTS, Report, files, quantile, rates, tails


def test_every_simulation_has_its_results() -> None:
    """Each has a page and a picture, there are no others, and every page is listed."""
    expected = {f"{name}.{kind}" for name in SIMULATIONS for kind in ("md", "svg")}
    assert {path.name for path in RESULTS.iterdir()} == expected
    listed = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    assert [name for name in SIMULATIONS if f"results/{name}.md" not in listed] == []


def test_a_picture_says_what_it_shows() -> None:
    """Lines without a value above zero, and panels on a logarithmic axis, can be drawn; titles are escaped."""
    zero = Line("none", [(0.0, 0.0), (1.0, 0.0)])
    grows = Line("all", [(0.0, 0.0), (1.0, 10.0), (2.0, 1000.0)])
    text = svg("a < b", "note", [Panel("flat", "s", [zero]), Panel("log", "s", [grows], log=True)])
    assert "a &lt; b" in text
    assert text.count("<polyline") == 2
    assert ET.fromstring(text).tag.endswith("svg")


def test_a_page_has_a_row_for_each_figure() -> None:
    """Head and rows make one table, and the page shows its own picture."""
    panel = Panel("flat", "s", [Line("one", [(0.0, 1.0), (1.0, 2.0)])])
    made = files(
        Report(
            name="made", title="Made", rule="It holds. Always.", setup="Up.", head=("", "count"),
            rows=[("a", "1"), ("b", "2")], panels=[panel],
        )
    )  # fmt: skip
    assert made.keys() == {"made.md", "made.svg"}
    assert "|  | count |\n| --- | ---: |\n| a | 1 |\n| b | 2 |\n" in made["made.md"]
    assert "(made.svg)" in made["made.md"]


def test_curves_are_counted_right() -> None:
    """A rate is of its own interval; a quantile is the smallest value that so many do not exceed."""
    assert rates([0.0, 0.9, 1.0, 3.5, 4.0], 4, every_s=2.0) == [(1.0, 1.5), (3.0, 0.5)]
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.75) == 3.0
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.76) == 4.0
    assert quantile([1.0], 0.0) == 1.0
    assert tails([(0.5, 1.0), (0.6, 9.0), (2.5, 3.0)], 3, 0.5) == [(0.5, 1.0), (2.5, 3.0)]
