"""docs/analysis.md, written from the checks and their examples: `python -m tests.analysis_docs`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from nats_mesh.policy.analysis import CHECKS
from tests.analysis_examples import EXAMPLES, written
from tests.tools import ROOT

__all__ = ["PAGE", "page"]

PAGE = ROOT / "docs" / "analysis.md"

_TOPICS = {
    "NM00": "The set as a whole",
    "NM01": "References",
    "NM02": "Rules out of reach",
    "NM03": "Weights and stickiness",
    "NM04": "Conflicts, and values that never count",
    "NM05": "Subsets",
    "NM06": "Access",
    "NM07": "Times",
    "NM08": "Work that runs twice",
    "NM09": "Breakers, ejection, balancers, faults",
    "NM10": "Rollouts",
}
_INTRO = """# What `policy analyze` finds

<!-- Written by `python -m tests.analysis_docs`; a test holds it against the code. -->

    nats-mesh policy analyze policies/
    nats-mesh policy analyze                 # the policies in effect, held against what runs now

Every finding has a code that never changes its meaning, a place (file, line, field) and a remedy. An **error** cannot
be meant: calls fail, or `apply` refuses the set; the exit code is 1. A **warning** most likely is not meant; with
`--strict` the exit code is 1 for it, too. An **info** may well be meant, and is worth knowing.

Name all files that belong together: a route whose `Destination` stands elsewhere leads to subsets that nobody names.
Istio's YAML is read as `policy apply` reads it.

Checks that say *needs a running mesh* compare policies with what answers on the bus: which services and endpoints there
are, what these declare, which versions and labels the instances have. They are left out with `--offline`, and where the
bus cannot be reached, which is said. A check is silent wherever it cannot be sure: a caller may give a timeout of its
own, another team may add an endpoint, a policy for a whole namespace is meant for some services and not for others.

In the examples of a running mesh, `orders` runs in version 1.0.0 (two instances) and 2.0.0 (one) with the endpoints
`get`, `list` and `place`, of which `place` must not run twice and declares a timeout of 3s; `billing` has one instance.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _INTRO
    yield "| code | severity | finding |"
    yield "| --- | --- | --- |"
    for code, check in sorted(CHECKS.items()):
        yield f"| [{code}](#{code.lower()}) | {check.severity} | {check.title} |"
    yield ""
    topic = ""
    for code, check in sorted(CHECKS.items()):
        if code[:4] != topic:
            topic = code[:4]
            yield f"## {_TOPICS[topic]}"
            yield ""
        example = EXAMPLES[code]
        needs = "needs a running mesh" if example.live else ""
        needs = f"needs the mode `{example.mode}`" if example.mode else needs
        yield f"### {code}"
        yield ""
        yield (
            f"**{check.title}** ({', '.join(part for part in (check.severity, needs) if part)}). "
            + " ".join(inspect.cleandoc(check.find.__doc__ or "").split())
        )
        yield ""
        yield f"```yaml\n{written(example.bad)}```"
        yield ""
        yield f"*Remedy*: {check.remedy}"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
