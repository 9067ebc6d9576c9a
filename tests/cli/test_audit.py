"""`audit`, `get --at` and `policy get --at` against a real server: looking back from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anyio
import pytest
import yaml

from nats_mesh.testing import NatsServer
from nats_mesh_cli.errors import FAILED, OK, USAGE
from tests.cli.program import Background, Done, run_many
from tests.stored import destination, operator

SERVICE = """
from nats_mesh import Service

shop = Service("shop", version="2.1.0", labels={"zone": "eu-1"})


@shop.endpoint(name="get")
async def get() -> str:
    return "here"
"""
POLICY = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: shop}
spec: {target: {service: shop}, timeout: %s}
"""


class Desk:
    """An operator's folder, and a server of their own namespace."""

    def __init__(self, url: str, namespace: str, folder: Path) -> None:
        self.env = {"NATS_URL": url, "MESH_NAMESPACE": namespace, "NO_COLOR": "1"}
        self.folder = folder

    def policy(self, timeout: str) -> str:
        """A file with one policy."""
        path = self.folder / "policy.yaml"
        path.write_text(POLICY % timeout)
        return str(path)

    def run(self, *lines: list[str]) -> list[Done]:
        """Commands one after the other."""
        return run_many(lines, self.env)

    def one(self, *line: str) -> Done:
        """One command."""
        return self.run(list(line))[0]


@pytest.fixture
def desk(nats_server: NatsServer, mesh_namespace: str, tmp_path: Path) -> Desk:
    """A namespace with an audit, and one policy that was changed once."""
    (tmp_path / "shop.py").write_text(SERVICE)
    made = Desk(nats_server.url, mesh_namespace, tmp_path)
    for timeout, why in (("1s", "begin"), ("2s", "slower")):
        done = made.one("policy", "apply", made.policy(timeout), "-m", why, "--as", "ann")
        assert done.code == OK, done.err
        assert "audit" not in done.err
    return made


def test_the_log_says_who_changed_what_when_and_why(desk: Desk) -> None:
    """One line a document, the oldest first; JSON lines carry what stood before and after."""
    table, wide, listed, lines, none = desk.run(
        ["audit"],
        ["audit", "-o", "wide"],
        ["audit", "-o", "yaml"],
        ["audit", "--kind", "policy", "-o", "jsonl"],
        ["audit", "--kind", "rollout", "-o", "json"],
    )
    assert {each.code for each in (table, wide, listed, lines, none)} == {OK}
    assert wide.out.splitlines()[0].split()[-2:] == ["SEQUENCE", "INSTANCE"]
    assert [each["sequence"] for each in yaml.safe_load(listed.out)] == [1, 2]
    assert none.json == []
    assert re.search(r"policy +created +Destination/shop +ann +begin", table.out)
    assert re.search(r"policy +configured +Destination/shop +ann +slower", table.out)
    records = [json.loads(line) for line in lines.out.splitlines()]
    assert [each["why"] for each in records] == ["begin", "slower"]
    assert records[0]["before"] is None
    assert records[1]["before"]["text"] == records[0]["after"]["text"]
    assert '"timeout":"2s"' in records[1]["after"]["text"].replace(" ", "")
    assert all(each["believed"] for each in records)


def test_audit_refuses_what_it_does_not_know(desk: Desk) -> None:
    """A wrong kind, instant or form is said before anything is read."""
    kind, since, form, endless = desk.run(
        ["audit", "--kind", "polcy"],
        ["audit", "--since", "yesterday"],
        ["audit", "-o", "name"],
        ["audit", "-f", "-o", "json"],
    )
    assert (kind.code, since.code, form.code, endless.code) == (USAGE, USAGE, USAGE, USAGE)
    assert "policy" in kind.err
    assert "is no instant" in since.err
    assert "has no name" in form.err
    assert "jsonl" in endless.err


def test_follow_shows_what_comes(desk: Desk) -> None:
    """`audit -f` goes on with what is recorded after it began."""
    with Background(["audit", "-f", "-o", "jsonl"], env=desk.env) as follow:
        follow.wait_for("slower")
        assert desk.one("policy", "delete", "Destination/shop", "-m", "done with it").code == OK
        line = json.loads(follow.wait_for("done with it"))
    assert (line["action"], line["what"]) == ("deleted", "Destination/shop")


def test_instances_and_services_of_a_moment(desk: Desk) -> None:
    """Who was there, from the audit, with version, labels, state and endpoints; who left since is there, too."""
    with Background(["run", "shop:shop"], env=desk.env, cwd=desk.folder) as run:
        run.wait_for("ready")
        (log,) = [
            json.loads(each)
            for each in desk.one("audit", "--kind", "presence", "-o", "jsonl").out.splitlines()
        ]
        assert (log["action"], log["version"]) == ("join", "2.1.0")
        moment = log["time"]
        run.interrupt()
    left = desk.one("audit", "--kind", "presence", "-o", "json").json
    assert [each["action"] for each in left] == ["join", "leave"]
    services, instances, later, none = desk.run(
        ["get", "services", "--at", moment, "-o", "json"],
        ["get", "instances", "shop", "--at", moment, "-o", "json"],
        ["get", "instances", "--at", left[1]["time"], "-o", "json"],
        ["get", "services", "other", "--at", moment],
    )
    assert services.code == instances.code == later.code == OK, services.err + instances.err
    (service,) = services.json
    assert (service["service"], service["versions"], service["endpoints"]) == (
        "shop",
        {"2.1.0": 1},
        ["get"],
    )
    (instance,) = instances.json
    assert (instance["state"], instance["labels"], instance["instance"]) == (
        "ready",
        {"zone": "eu-1"},
        log["instance"],
    )
    assert later.json == []
    assert none.code == FAILED
    assert "no service 'other'" in none.err


def test_what_cannot_be_known_is_an_error(desk: Desk) -> None:
    """Before the audit, in the future, of endpoints, of all namespaces, or watched: said, never guessed."""
    before, future, endpoints, everywhere, watch = desk.run(
        ["get", "services", "--at", "2020-01-01T00:00:00Z"],
        ["get", "services", "--at", "2100-01-01T00:00:00Z"],
        ["get", "endpoints", "--at", "-1m"],
        ["get", "services", "-A", "--at", "-1m"],
        ["get", "services", "-w", "--at", "-1m"],
    )
    assert (before.code, future.code) == (FAILED, FAILED)
    assert "nothing is known of 2020" in before.err
    assert "still to come" in future.err
    assert endpoints.code == everywhere.code == watch.code == USAGE
    assert before.out == future.out == ""


async def change_often(desk: Desk) -> None:
    """So often that the store drops what stood there first."""
    async with operator(desk.env["NATS_URL"], desk.env["MESH_NAMESPACE"]) as ops:
        for number in range(4, 70):
            await ops.put(destination("shop", f"{number}s"))


def test_policies_of_a_moment_say_where_they_come_from(desk: Desk) -> None:
    """From the store while it keeps them, then from the audit, byte for byte the same."""
    first, second = (each["time"] for each in desk.one("audit", "--kind", "policy", "-o", "json").json)
    now = desk.one("policy", "get", "Destination/shop", "-o", "json", "--at", second)
    assert now.json["spec"]["timeout"] == "2s"
    assert "from the store" in now.err
    old = desk.one("policy", "get", "Destination/shop", "-o", "json", "--at", first)
    anyio.run(change_often, desk)
    done = desk.run(
        ["policy", "get", "Destination/shop", "-o", "json", "--at", first],
        ["policy", "get", "--at", "2020-01-01T00:00:00Z"],
    )
    assert done[-2].code == OK, done[-2].err
    assert (done[-2].out, "from the audit" in done[-2].err) == (old.out, True)
    assert done[-1].code == FAILED
    assert "nor does the audit know" in done[-1].err


def test_revisions_beyond_the_buckets_history_come_from_the_audit(desk: Desk) -> None:
    """`get --revision` and `undo --to-revision` give back what stood there byte for byte, and say where it comes from;
    `history` says where it ends, and where the rest is. What nobody wrote down is an error that names the policy."""
    values = [destination("shop", f"{number}s") for number in range(10, 90)]

    async def write() -> dict[int, bytes]:
        async with operator(desk.env["NATS_URL"], desk.env["MESH_NAMESPACE"]) as ops:
            return {(await ops.put(value)).sequence: value for value in values}

    written = anyio.run(write)
    old, new = sorted(written)[3], sorted(written)[-3]
    got, recent, history, one, undone, now = desk.run(
        ["policy", "get", "--revision", str(old), "-o", "json"],
        ["policy", "get", f"Destination/shop@{new}", "-o", "json"],
        ["policy", "history"],
        ["policy", "history", "--limit", "1", "-o", "json"],
        ["policy", "undo", "--to-revision", str(old)],
        ["policy", "get", "Destination/shop", "-o", "json"],
    )
    assert got.code == recent.code == history.code == undone.code == OK, (got.err, undone.err)
    assert json.loads(got.out) == [json.loads(written[old])]
    assert f"as of revision {old}, from the audit" in got.err
    assert "Destination/shop" in got.err
    assert json.loads(recent.out) == json.loads(written[new])
    assert "from the audit" not in recent.err
    assert "the store keeps 64 revisions of a policy: not Destination/shop before revision" in history.err
    assert "the audit goes back to" in history.err
    assert len(json.loads(one.out)) == 1
    assert "from the audit" in undone.err
    assert json.loads(now.out) == json.loads(written[old])

    async def stored() -> bytes | None:
        async with operator(desk.env["NATS_URL"], desk.env["MESH_NAMESPACE"]) as ops:
            return (await ops.store.snapshot()).policies["Destination.shop"].value

    assert anyio.run(stored) == written[old]

    async def unrecorded() -> int:
        async with operator(desk.env["NATS_URL"], desk.env["MESH_NAMESPACE"]) as ops:
            for number in range(66):
                await ops.raw("Destination.stock", destination("stock", f"{number + 1}s"))
            return (await ops.store.history("Destination.stock"))[0].sequence - 1

    gone = anyio.run(unrecorded)
    lost, kept = desk.run(
        ["policy", "get", "--revision", str(gone), "-o", "json"],
        ["policy", "undo", "--to-revision", str(gone)],
    )
    for done in (lost, kept):
        assert done.code == FAILED
        assert (
            f"at revision {gone} is not kept any more of Destination/stock; nor does the audit know"
            in done.err
        )


def test_a_namespace_without_an_audit(nats_server: NatsServer, mesh_namespace: str, tmp_path: Path) -> None:
    """It is said what makes one, and `--make` does; once."""
    desk = Desk(nats_server.url, mesh_namespace, tmp_path)
    absent, past, made, again = desk.run(
        ["audit"], ["get", "services", "--at", "-1s"], ["audit", "--make"], ["audit", "--make"]
    )
    assert (absent.code, past.code, made.code, again.code) == (FAILED, FAILED, OK, OK)
    assert "--make" in absent.err
    assert "--make" in past.err
    assert "was made" in made.err
    assert "there already" in again.err
