"""Istio's documents go through `policy apply` and `delete -f` as the mesh's own do, and nothing is lost in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from nats_mesh.testing import NatsServer
from nats_mesh_cli.errors import FAILED, OK, USAGE
from tests.cli.program import Done, run_many
from tests.istio import text_of

RULE = "host: reviews\nsubsets: [{name: v1, labels: {version: v1}}]"
POOL = "host: reviews\ntrafficPolicy: {connectionPool: {http: {http2MaxRequests: 5, maxRequestsPerConnection: 1}}}"
ROUTE = "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews, subset: v1}}]}]"
URI = "hosts: [reviews]\nhttp: [{match: [{uri: {prefix: /x}}], route: [{destination: {host: reviews}}]}]"
DENY = "action: DENY\nrules: [{from: [{source: {principals: ['*']}}]}]"
OWN = """apiVersion: mesh/v1
kind: Limit
metadata: {name: own}
spec: {target: {service: reviews}, concurrency: {limit: 9}}
"""
TOKENS = "jwtRules: [{issuer: i, jwksUri: 'https://i/k'}]"
DOOR = "servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*']}]"
BEHIND = "hosts: ['*']\ngateways: [x]\nhttp: [{route: [{destination: {host: reviews}}]}]"


class Desk:
    """A namespace on a server, and a folder with files."""

    def __init__(self, url: str, namespace: str, folder: Path) -> None:
        self.env = {"NATS_URL": url, "MESH_NAMESPACE": namespace, "NO_COLOR": "1"}
        self.folder = folder

    def write(self, *documents: str) -> str:
        """A file with these documents."""
        path = self.folder / "policies.yaml"
        path.write_text("---\n".join(documents))
        return str(path)

    def run(self, *lines: list[str]) -> list[Done]:
        """Commands one after the other."""
        return run_many(lines, self.env)


@pytest.fixture
def desk(nats_server: NatsServer, tmp_path: Path, mesh_namespace: str) -> Desk:
    """Nobody follows the store."""
    return Desk(nats_server.url, mesh_namespace, tmp_path)


def test_mixed_files_are_applied_and_deleted(desk: Desk) -> None:
    """Both kinds of documents in one file; again nothing changes; the same file deletes what it made."""
    file = desk.write(
        text_of("VirtualService", ROUTE, name="r"), OWN, text_of("DestinationRule", RULE, name="d")
    )
    first, again, stored, gone, left = desk.run(
        ["policy", "apply", file],
        ["policy", "apply", "-f", file, "--strict"],
        ["policy", "get", "-o", "name"],
        ["policy", "delete", "-f", file],
        ["policy", "get", "-o", "name"],
    )
    names = ["Destination/d", "Limit/own", "Route/r"]
    assert (first.code, sorted(first.out.splitlines())) == (OK, [f"{name} created" for name in names])
    assert (again.code, sorted(again.out.splitlines())) == (OK, [f"{name} unchanged" for name in names])
    assert sorted(stored.out.split()) == names
    assert (gone.code, sorted(gone.out.splitlines())) == (OK, [f"{name} deleted" for name in names])
    assert left.out == ""


def test_what_has_no_meaning_is_told_and_refused_under_strict(desk: Desk) -> None:
    """By path, on stderr; what changes where calls go is marked. With --strict: exit code 1, and nothing is stored."""
    file = desk.write(
        text_of("DestinationRule", POOL, name="d"), text_of("VirtualService", URI, name="u"), OWN
    )
    strict, missing, done = desk.run(
        ["policy", "apply", file, "--strict"], ["policy", "get"], ["policy", "apply", file]
    )
    assert strict.code == FAILED
    assert "nothing was stored" in strict.err
    assert "no policy store" in missing.err
    assert done.code == OK
    lost = [line for line in done.err.splitlines() if line.startswith("no meaning here: ")]
    where = f"{file}:6: DestinationRule/d spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection: "
    assert lost[0].startswith(f"no meaning here: {where}")
    assert any(
        "VirtualService/u spec.http[0]" in line and "changes which calls go where" in line for line in lost
    )
    assert {"Limit/own created", "Limit/d created"} <= set(done.out.splitlines())


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (text_of("AuthorizationPolicy", DENY), "AuthorizationPolicy/x comes to Access/x, which nothing applies: "),
        (text_of("RequestAuthentication", TOKENS), "RequestAuthentication/x comes to Authentication/x, "),
        (text_of("Gateway", DOOR) + "---\n" + text_of("VirtualService", BEHIND, name="b"), "comes to Gateway/x, "),
    ],
)  # fmt: skip
def test_what_nothing_applies_is_refused_in_plain_words(desk: Desk, document: str, says: str) -> None:
    """By the name of Istio's document; what stands beside it is not stored either."""
    refused, missing = desk.run(["policy", "apply", desk.write(OWN, document)], ["policy", "get"])
    assert refused.code == USAGE
    assert says in refused.err
    assert "not in this version yet; policy convert shows it" in refused.err
    assert "no policy store" in missing.err


def test_what_is_told_of_calls_is_stored(desk: Desk) -> None:
    """Istio's Telemetry comes to one of the mesh, which holds like any other."""
    document = "tracing: [{randomSamplingPercentage: 5}]\naccessLogging: [{filter: {expression: response.code >= 400}}]"
    done, stored = desk.run(
        ["policy", "apply", desk.write(text_of("Telemetry", document))],
        ["policy", "get", "Telemetry/x", "-o", "json"],
    )
    assert (done.code, done.out) == (0, "Telemetry/x created\n"), done.err
    spec = stored.json["spec"]
    assert (spec["tracing"], spec["accessLog"]) == ({"sampling": "5%"}, {"mode": "errors"})


def test_a_mistake_is_told_with_its_line(desk: Desk) -> None:
    """A field that does not exist, with the nearest one; nothing is stored."""
    file = desk.write(OWN, text_of("DestinationRule", "host: reviews\nsubset: []"))
    refused, missing = desk.run(["policy", "apply", file], ["policy", "get"])
    assert refused.code == USAGE
    assert (
        f"{file}:11: spec.subset: is no field of Istio's DestinationRule; did you mean subsets?"
        in refused.err
    )
    assert "no policy store" in missing.err


def test_nothing_with_a_meaning_is_nothing_to_store(desk: Desk) -> None:
    """A file of which nothing is left is bad input."""
    file = desk.write("apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec: {}\n")
    (done,) = desk.run(["policy", "apply", file])
    assert done.code == USAGE
    assert "no meaning here: " in done.err
    assert "there are no policies in what was given" in done.err


def test_what_a_document_comes_to_no_more_is_named(desk: Desk) -> None:
    """A DestinationRule that lost its connection pool: the Limit stays, and that is said."""
    _, done = desk.run(
        ["policy", "apply", desk.write(text_of("DestinationRule", POOL, name="d"))],
        ["policy", "get"],
    )
    assert "Limit/d" in done.out
    (again,) = desk.run(["policy", "apply", desk.write(text_of("DestinationRule", RULE, name="d"))])
    assert again.code == OK
    assert (
        "note: Limit/d stays: DestinationRule/d does not come to it; policy delete Limit/d removes it"
        in again.err
    )
