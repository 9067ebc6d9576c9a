"""What `policy analyze` finds: each check finds its example, and nothing in what its remedy makes of it."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.matcher import HeaderTest, in_patterns, matches_pattern
from nats_mesh.core.router import Match
from nats_mesh.policy import Policy, parse
from nats_mesh.policy.analysis import CHECKS, SEVERITIES, Endpoint, Finding, Instance, Service, World, analyze
from nats_mesh.policy.analysis.implication import covered, covers_pattern, implies
from nats_mesh.policy.istio import translate_files
from tests.analysis_docs import PAGE, page
from tests.analysis_examples import EXAMPLES, WORLD, Example, written
from tests.tools import ROOT


def found(example: Example, *, good: bool = False) -> list[Finding]:
    """What an analysis of an example finds."""
    policies = parse(written(example.good if good else example.bad), file="orders.yaml")
    return analyze(policies, WORLD if example.live else None, mode=example.mode)


@pytest.mark.parametrize("code", sorted(CHECKS))
def test_a_check_finds_its_example(code: str) -> None:
    """The finding stands in the example once, at a line of the file that has its field, with message and remedy."""
    example = EXAMPLES[code]
    (finding,) = [each for each in found(example) if each.code == code]
    assert finding.severity == CHECKS[code].severity
    assert finding.remedy == CHECKS[code].remedy
    assert finding.message
    line = written(example.bad).splitlines()[finding.line - 1]
    field = finding.path.rpartition(".")[2].partition("[")[0]
    assert field in line or "[" in finding.path or field in ("service", "name", "subset", "target"), (
        finding,
        line,
    )


@pytest.mark.parametrize("code", sorted(CHECKS))
def test_the_remedy_mends_it(code: str) -> None:
    """What the example looks like once it is mended has not the finding, and no other error or warning."""
    rest = [each for each in found(EXAMPLES[code], good=True) if each.code == code or each.severity != "info"]
    assert rest == []


def test_every_check_has_an_example_and_a_section() -> None:
    """The checks, the examples and docs/analysis.md are one; `python -m tests.analysis_docs` writes the page."""
    assert set(EXAMPLES) == set(CHECKS)
    assert {check.severity for check in CHECKS.values()} <= set(SEVERITIES)
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_ready_policies_have_no_findings() -> None:
    """All of policies/ together, and each file alone."""
    every: list[Policy] = []
    for path in sorted((ROOT / "policies").rglob("*.yaml")):
        policies = parse(path.read_bytes(), file=path.name)
        assert analyze(policies, mode="open") == []
        every += policies
    assert [each for each in analyze(every, mode="open") if each.severity != "info"] == []


ISTIO = ROOT / "examples" / "bookinfo" / "istio"
_SUBSETS = "destination-rule-all.yaml"


@pytest.mark.parametrize("name", sorted(path.name for path in ISTIO.glob("*.yaml")))
def test_istio_s_files_have_no_findings(name: str) -> None:
    """Each of Bookinfo's files, with the subsets that it needs: no error and no warning, and nothing untrue."""
    files = [name] if name.startswith("destination-rule") else [_SUBSETS, name]
    policies = translate_files([((ISTIO / each).read_bytes(), each) for each in files]).policies
    assert policies
    found = analyze(policies, mode="open")
    assert [each for each in found if each.severity != "info"] == []
    # Bookinfo names all of its subsets at once, and uses some of them; gateways have no layer yet.
    assert {each.code for each in found} <= {"NM0503", "NM0002"}


def bookinfo() -> World:
    """What runs of Bookinfo without MySQL: each service's versions by the label of that name."""
    there = {
        "productpage": ("page", 4.0, 1), "details": ("get", 3.0, 2), "reviews": ("list", 11.0, 3),
        "ratings": ("get", 3.0, 2),
    }  # fmt: skip
    return World(
        services={
            service: Service(
                endpoints={endpoint: Endpoint(timeout_s=timeout_s, idempotent=True, concurrency=256)},
                instances=tuple(
                    Instance(id=f"{service}{number}", version="1.0.0", labels={"version": f"v{number + 1}"})
                    for number in range(count)
                ),
            )
            for service, (endpoint, timeout_s, count) in there.items()
        }
    )


def test_istio_s_files_have_no_untrue_findings_where_bookinfo_runs() -> None:
    """The one thing wrong is the version of ratings on MySQL, which does not run."""
    found: list[tuple[str, str, str]] = []
    for path in sorted(ISTIO.glob("virtual-service-*.yaml")):
        files = [_SUBSETS, path.name]
        policies = translate_files([((ISTIO / each).read_bytes(), each) for each in files]).policies
        for each in analyze(policies, bookinfo(), mode="open"):
            if each.severity != "info":
                found.append((path.name, each.code, each.message))
            else:
                assert each.code in ("NM0503", "NM0502")
                assert each.code == "NM0503" or "mysql" in each.message
    (one,) = found
    assert one[:2] == ("virtual-service-ratings-mysql.yaml", "NM0501")
    assert "there are: label version v1, v2" in one[2]


def test_no_policies_have_no_findings() -> None:
    """Nothing is found in nothing, with and without a mesh."""
    assert analyze([]) == []
    assert analyze([], WORLD, mode="open") == []


def one(text: str, world: World | None = None, *, mode: str = "") -> list[tuple[str, str, int]]:
    """Code, path and line of everything found in some YAML."""
    return [
        (each.code, each.path, each.line) for each in analyze(parse(text, file="f.yaml"), world, mode=mode)
    ]


ROUTE = """apiVersion: mesh/v1
kind: Route
metadata: {name: r}
spec:
  target: {service: orders}
  rules:
"""


@pytest.mark.parametrize(
    ("rules", "reached"),
    [
        ("callers: [web]|callers: [web]", False),
        ("callers: ['*']|callers: [web]", False),
        ("callers: ['web-*']|callers: [web-eu]", False),
        ("callers: ['web-*']|callers: ['web-eu-*']", False),
        ("callers: ['*-eu']|callers: [web-eu]", False),
        ("callers: [web-eu]|callers: ['web-*']", True),
        ("callers: ['*-eu']|callers: ['web-*']", True),
        ("endpoints: [get]|endpoints: [list]", True),
        ("endpoints: [get]|endpoints: [get], callers: [web]", False),
        ("endpoints: [get], callers: [web]|endpoints: [get]", True),
        ("headers: {a: x}|headers: {a: x}", False),
        ("headers: {a: x}|headers: {a: x, b: y}", False),
        ("headers: {a: x, b: y}|headers: {a: x}", True),
        ("headers: {a: {present: true}}|headers: {a: x}", False),
        ("headers: {a: {absent: true}}|headers: {a: x}", True),
        ("headers: {a: {prefix: xy}}|headers: {a: {prefix: x}}", True),
        ("headers: {a: {prefix: x}}|headers: {a: {prefix: xy}}", False),
        ("headers: {a: {suffix: z}}|headers: {a: xyz}", False),
        ("headers: {a: {regex: 'x+'}}|headers: {a: xxx}", False),
        ("headers: {a: {regex: 'x+'}}|headers: {a: {regex: 'x+y'}}", True),
        ("headers: {a: {range: {start: 1, end: 9}}}|headers: {a: {range: {start: 2, end: 3}}}", False),
        ("headers: {a: {range: {start: 1, end: 9}}}|headers: {a: {range: {start: 2}}}", True),
        ("headers: {a: {range: {start: 1}}}|headers: {a: '7'}", False),
        ("headers: {a: {exact: x, invert: true}}|headers: {a: {prefix: x, invert: true}}", False),
        ("headers: {a: {exact: x, invert: true}}|headers: {a: {absent: true}}", False),
        ("headers: {a: {exact: x, invert: true}}|headers: {a: y}", True),  # a header may stand twice
        ("callers: [web], share: 10%|callers: [web]", True),
        ("callers: [web], share: 100%|callers: [web]", False),
    ],
)  # fmt: skip
def test_a_rule_is_out_of_reach_where_that_follows(rules: str, reached: bool) -> None:
    """The second rule is found exactly where each of its calls meets the first."""
    first, second = rules.split("|")
    text = f"{ROUTE}    - {{match: {{{first}}}, timeout: 1s}}\n    - {{match: {{{second}}}, timeout: 2s}}\n"
    codes = [code for code, _, line in one(text) if line == 8]
    assert ("NM0201" in codes) is not reached


def test_several_rules_together_take_another_s_calls() -> None:
    """Two rules may cover a third that neither covers alone; the finding names both."""
    text = (
        f"{ROUTE}    - {{match: {{callers: [a]}}, timeout: 1s}}\n    - {{match: {{callers: [c]}}, timeout: 1s}}\n"
        "    - {match: {callers: [b]}, timeout: 1s}\n    - {match: {callers: [a, b]}, timeout: 2s}\n"
    )
    (finding,) = analyze(parse(text, file="f.yaml"))
    assert (finding.code, finding.line) == ("NM0201", 10)
    assert "rules[0] (line 7) and rules[2] (line 9)" in finding.message


_TEXTS = st.text("ab1", min_size=0, max_size=3)
_NAMES = st.sampled_from(["a", "b"])


@st.composite
def _tests(draw: st.DrawFn) -> HeaderTest:
    kind = draw(st.sampled_from(["exact", "prefix", "suffix", "regex", "present", "range"]))
    invert = draw(st.booleans())
    name = draw(_NAMES)
    if kind == "present":
        return HeaderTest(name=name, present=draw(st.booleans()), invert=invert)
    if kind == "range":
        start, end = draw(st.integers(0, 12)), draw(st.integers(13, 120))
        return HeaderTest(name=name, start=start, end=end if draw(st.booleans()) else None, invert=invert)
    if kind == "regex":
        return HeaderTest(name=name, regex=draw(st.sampled_from(["a*", ".*", "ab?", "1"])), invert=invert)
    text = draw(_TEXTS)
    if kind == "exact":
        return HeaderTest(name=name, exact=text, invert=invert)
    if kind == "prefix":
        return HeaderTest(name=name, prefix=text, invert=invert)
    return HeaderTest(name=name, suffix=text, invert=invert)


_SAID: list[dict[str, Any]] = [
    {"present": True}, {"present": False}, {"exact": "a"}, {"exact": "ab"}, {"exact": "12"}, {"prefix": "a"},
    {"prefix": "ab"}, {"prefix": ""}, {"suffix": "b"}, {"suffix": "ab"}, {"suffix": ""}, {"regex": "a*b?"},
    {"regex": ".*"}, {"regex": "1+"}, {"start": 5}, {"end": 20}, {"start": 10, "end": 15}, {"start": 5, "end": 20},
]  # fmt: skip
_CONDITIONS = [HeaderTest(name="a", invert=invert, **said) for said in _SAID for invert in (False, True)]
_ONE = ["", "a", "ab", "b", "aab", "1", "5", "12", "15", "20", "x"]
_VALUES = [[], *([one] for one in _ONE), *([one, other] for one in _ONE for other in _ONE)]


def test_what_is_implied_holds() -> None:
    """Where one condition implies another, no values of the header meet the first and not the second: every pair of
    conditions, over none, one and two values."""
    implied = 0
    for narrow in _CONDITIONS:
        held = [values for values in _VALUES if narrow.holds(values)]
        for wide in _CONDITIONS:
            if implies(narrow, wide):
                implied += 1
                assert all(wide.holds(values) for values in held), (str(narrow), str(wide))
    assert implied > 2 * len(_CONDITIONS)


@given(_tests())
def test_a_condition_implies_itself(test: HeaderTest) -> None:
    """Two rules with the same condition are always seen."""
    assert implies(test, test)


_PATTERNS = st.builds(
    lambda head, name, tail: f"{head}{name}{'' if head else tail}", st.sampled_from(["", "*"]), _TEXTS.filter(bool),
    st.sampled_from(["", "*"]),
) | st.just("*")  # fmt: skip


def test_a_pattern_covers_every_name_of_another() -> None:
    """Where one pattern covers another, no name is in the second alone: all short patterns and names of two letters."""
    names = ["".join(letters) for size in (1, 2, 3, 4) for letters in product("ab", repeat=size)]
    patterns = [
        "*",
        *(f"{head}{name}{tail}" for name in names[:14] for head, tail in (("", ""), ("*", ""), ("", "*"))),
    ]
    for wide in patterns:
        for narrow in patterns:
            inside = [name for name in names if matches_pattern(narrow, name)]
            if covers_pattern(wide, narrow):
                assert all(matches_pattern(wide, name) for name in inside), (wide, narrow)


_MATCHES = st.builds(
    lambda callers, endpoints, headers, share: Match(
        callers=tuple(callers), endpoints=tuple(endpoints), headers=tuple(headers), share=share
    ),
    st.lists(_PATTERNS, max_size=2), st.lists(_PATTERNS, max_size=2), st.lists(_tests(), max_size=2),
    st.sampled_from([None, None, 0.5]),
)  # fmt: skip


@given(
    _MATCHES, st.lists(_MATCHES, max_size=3), _TEXTS.filter(bool), _TEXTS.filter(bool),
    st.dictionaries(_NAMES, st.lists(_TEXTS, max_size=2)),
)  # fmt: skip
def test_what_is_covered_is_met(
    narrow: Match, wide: list[Match], caller: str, endpoint: str, headers: dict[str, list[str]]
) -> None:
    """Where matches cover another, each call that meets it meets one of them, whatever its share."""

    def meets(match: Match) -> bool:
        return (
            in_patterns(match.callers, caller)
            and in_patterns(match.endpoints, endpoint)
            and all(test.holds(headers.get(test.name, [])) for test in match.headers)
        )

    if covered(narrow, wide) and meets(narrow):
        assert any(meets(each) and each.share is None for each in wide)


def test_other_namespaces_are_looked_at_among_themselves() -> None:
    """What runs here says nothing about another namespace, and its policies conflict with none of here."""
    text = (
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a}\nspec: {target: {service: orders}, timeout: 4s}\n"
        "---\napiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a, namespace: other}\n"
        "spec: {target: {service: orders}, timeout: 1ms}\n"
    )
    assert one(text, WORLD) == []


def test_a_wide_policy_is_meant_for_those_that_it_helps() -> None:
    """Retries for a whole service are fine where one of its endpoints may run twice; where none may, they are found."""
    text = (
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a}\n"
        "spec: {target: {service: orders}, retry: {attempts: 4}}\n"
    )
    writes = World(
        services={
            "orders": Service(endpoints={"place": Endpoint(idempotent=False)}, instances=(Instance(id="A"),))
        }
    )
    assert one(text, WORLD) == []
    assert [code for code, _, _ in one(text, writes)] == ["NM0801"]
    assert one(text) == []  # and nobody says anything of a mesh that was not asked


def test_values_are_judged_where_they_hold() -> None:
    """A timeout of a Route counts for what the Destination says of retries, in the calls of that rule alone."""
    text = (
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: a}\n"
        "spec: {target: {service: orders}, retry: {attempts: 3, perTryTimeout: 1s}}\n---\n"
        "apiVersion: mesh/v1\nkind: Route\nmetadata: {name: b}\nspec:\n  target: {service: orders}\n"
        "  rules:\n    - match: {callers: [batch]}\n      timeout: 9s\n"
        "    - match: {callers: [web]}\n      timeout: 1500ms\n"
    )
    (finding,) = analyze(parse(text, file="f.yaml"))
    assert (finding.code, finding.policy) == ("NM0702", "Destination/a")
    assert "Route/b" in finding.message
    assert "attempt 3 of 3" in finding.message


def test_a_mistake_is_told_once() -> None:
    """What a check of its own names is not said again as what `apply` refuses."""
    codes = [each.code for each in found(EXAMPLES["NM0103"])]
    assert codes.count("NM0103") == 1
    assert "NM0001" not in codes


def test_a_large_set_is_looked_at() -> None:
    """An analysis of a large set ends, with a finding for each mistake and none beside."""
    documents = [
        "apiVersion: mesh/v1\nkind: Destination\n"
        f"metadata: {{name: s{index}}}\nspec: {{target: {{service: s{index}}}, timeout: 2s}}\n"
        for index in range(1000)
    ]
    assert one("---\n".join(documents)) == []


@given(
    st.lists(st.sampled_from(sorted(EXAMPLES)), max_size=5),
    st.booleans(),
    st.sampled_from(["", "open", "enforced"]),
)
def test_any_company_is_looked_at(codes: list[str], live: bool, mode: str) -> None:
    """Whatever stands beside each other, an analysis ends, and every finding has a place and a remedy."""
    text = "---\n".join(written(EXAMPLES[code].bad) for code in codes)
    policies = parse(text, file="orders.yaml") if codes else ()
    names = {policy.name for policy in policies}
    lines = text.count("\n") + 1
    for finding in analyze(policies, WORLD if live else None, mode=mode):
        assert finding.policy in names
        assert 1 <= finding.line <= lines
        assert finding.code in CHECKS
        assert finding.message
        assert finding.remedy


def test_what_has_no_lines_is_looked_at_alike() -> None:
    """Policies of the store have no lines; the same is found in them."""
    for code, example in EXAMPLES.items():
        policies = parse(written(example.bad), file="orders.yaml")
        bare = [msgspec.structs.replace(policy, lines={}) for policy in policies]
        world = WORLD if example.live else None
        with_lines = {each.code for each in analyze(policies, world, mode=example.mode)}
        assert {each.code for each in analyze(bare, world, mode=example.mode)} == with_lines, code
