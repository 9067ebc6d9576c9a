"""`policy convert`: Istio's YAML as policies on stdout, what has no meaning on stderr, and what the exit code says."""

from __future__ import annotations

from pathlib import Path

import msgspec

from nats_mesh.policy import parse
from tests.cli.program import run_cli
from tests.istio import text_of
from tests.tools import ROOT

BOOKINFO = ROOT / "examples" / "bookinfo" / "istio"
ROUTE = "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews, subset: v1}}]}]"
LOSSY = "host: reviews\ntrafficPolicy: {loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 80}}]}"


def test_what_is_written_is_valid(tmp_path: Path) -> None:
    """The output of several files, one of them from stdin, is what `policy validate` takes; comments say where it is
    from."""
    done = run_cli(
        "policy", "convert", str(BOOKINFO / "destination-rule-all.yaml"), "-", "--strict",
        stdin=(BOOKINFO / "virtual-service-reviews-80-20.yaml").read_text(),
    )  # fmt: skip
    assert (done.code, done.err) == (0, "5 policies; 0 without a meaning here\n")
    assert "# from VirtualService/reviews, stdin:1" in done.out
    (tmp_path / "mesh.yaml").write_text(done.out)
    assert run_cli("policy", "validate", str(tmp_path)).code == 0


def test_what_has_no_meaning_is_named(tmp_path: Path) -> None:
    """Paths go to stderr, with file and line; they count for the exit code with --strict alone."""
    file = tmp_path / "rule.yaml"
    file.write_text(text_of("DestinationRule", LOSSY))
    done = run_cli("policy", "convert", str(file))
    assert done.code == 0
    assert parse(done.out)[0].name == "Destination/x"
    first, last = done.err.splitlines()
    assert first.startswith(f"warning: {file}:6: DestinationRule/x spec.trafficPolicy.portLevelSettings: ")
    assert last == "1 policy; 1 without a meaning here"
    strict = run_cli("policy", "convert", str(file), "--strict")
    assert (strict.code, strict.out) == (1, done.out)


def test_json_has_everything_on_stdout(tmp_path: Path) -> None:
    """For programs there is one object: documents, losses, notes, subsets that are elsewhere, and what is not
    applied."""
    (tmp_path / "a.yaml").write_text(
        "---\n".join(
            [
                text_of("VirtualService", ROUTE),
                text_of("AuthorizationPolicy", "rules: [{to: [{operation: {paths: [/a]}}]}]", name="p"),
                text_of("DestinationRule", LOSSY.replace("reviews", "a"), name="d"),
            ]
        )
    )
    done = run_cli("policy", "convert", str(tmp_path), "-o", "json")
    assert (done.code, done.err) == (0, "")
    found = done.json
    assert [each["kind"] for each in found["policies"]] == ["Destination", "Route", "Access"]
    for each in found["policies"]:
        parse(msgspec.json.encode(each), file="x.json")
    assert [(each["document"], each["path"], each["severity"]) for each in found["untranslated"]] == [
        ("AuthorizationPolicy/p", "spec.rules[0]", "serious"),
        ("AuthorizationPolicy/p", "spec.rules[0].to[0].operation.paths", "serious"),
        ("DestinationRule/d", "spec.trafficPolicy.portLevelSettings", "warning"),
    ]
    assert [each["path"] for each in found["unknown_subsets"]] == ["spec.rules[0].split[0].subset"]
    assert [each["policy"] for each in found["not_applied_yet"]] == ["Access/p"]


def test_subsets_of_other_files_and_kinds_without_a_layer_are_told(tmp_path: Path) -> None:
    """A file that only goes together with another one is translated all the same, and so is what nothing applies
    yet."""
    done = run_cli("policy", "convert", "-", stdin=text_of("VirtualService", ROUTE))
    assert done.code == 0
    assert (
        "elsewhere: stdin:6: spec.rules[0].split[0].subset: no Destination names subsets of reviews"
        in done.err
    )
    later = run_cli("policy", "convert", "-", stdin=text_of("AuthorizationPolicy", "{}"))
    assert "this version does not apply Access/x yet: policy validate and apply refuse them" in later.err


def test_what_is_beside_the_files_is_looked_at_and_not_translated(tmp_path: Path) -> None:
    """`--with` names other files, or the store; without it is said what was not looked at."""
    (tmp_path / "mesh.yaml").write_text(
        "apiVersion: mesh/v1\nkind: Destination\nmetadata: {name: reviews}\n"
        "spec: {target: {service: reviews}, subsets: {v1: {version: 1.0.0}}}\n"
    )
    text = text_of("VirtualService", ROUTE)
    alone = run_cli("policy", "convert", "-", stdin=text)
    assert "the store was not looked at: --with live looks there, --with FILE at other files" in alone.err
    beside = run_cli("policy", "convert", "-", "--with", str(tmp_path), "-o", "json", stdin=text).json
    assert beside["unknown_subsets"] == []
    assert [each["kind"] for each in beside["policies"]] == ["Route"]
    assert beside["looked_at"] == ["stdin", str(tmp_path)]
    away = run_cli(
        "policy", "convert", "-", "--with", "live", stdin=text, env={"NATS_URL": "nats://127.0.0.1:1"}
    )
    assert (away.code, "cannot reach" in away.err) == (3, True)


def test_bad_input() -> None:
    """Mistakes are exit code 2, with file and line, and nothing on stdout; so are two rules that cannot both hold."""
    bad = run_cli("policy", "convert", "-", stdin=text_of("VirtualService", "hosts: [a]\nhtpp: []"))
    assert (bad.code, bad.out) == (2, "")
    assert "stdin:6: spec.htpp: is no field of Istio's VirtualService; did you mean http?" in bad.err
    twice = "---\n".join([text_of("VirtualService", ROUTE, name=name) for name in ("a", "b")])
    both = run_cli("policy", "convert", "-", stdin=twice)
    assert (both.code, both.out) == (2, "")
    assert "Route/b and Route/a (stdin:1) are both about reviews: put them into one" in both.err
    nothing = run_cli("policy", "convert", "/nowhere")
    assert (nothing.code, nothing.out) == (2, "")


def test_nothing_to_write() -> None:
    """A file of which nothing is left gives an empty output, and in JSON an empty list."""
    text = text_of("DestinationRule", "host: a\ntrafficPolicy: {tls: {mode: DISABLE}}")
    done = run_cli("policy", "convert", "-", stdin=text)
    assert (done.code, done.out) == (0, "")
    assert run_cli("policy", "convert", "-", "-o", "json", stdin=text).json["policies"] == []
    assert (
        run_cli("policy", "convert", "-", "-o", "name", stdin=text_of("VirtualService", ROUTE)).out
        == "Route/x\n"
    )
