"""The tables of docs/testing-policies.md, written from the schema: `python -m tests.expectation_docs`."""

from __future__ import annotations

from nats_mesh.policy.trials.expectation_parts import PolicyTestSpec
from tests import policy_docs
from tests.tools import ROOT

__all__ = ["PAGE", "brought_up_to_date"]

PAGE = ROOT / "docs" / "testing-policies.md"
_START = "<!-- Written by `python -m tests.expectation_docs`; a test holds it against the schema. -->\n"
_END = "<!-- end -->\n"


def brought_up_to_date(page: str) -> str:
    """``page`` with the tables as they should be."""
    before, _, rest = page.partition(_START)
    _, _, after = rest.partition(_END)
    lines = list(policy_docs._section("### `spec`", PolicyTestSpec, set()))
    return f"{before}{_START}\n{chr(10).join(lines)}\n{_END}{after}"


if __name__ == "__main__":
    PAGE.write_text(brought_up_to_date(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
