"""`config`: values are checked by the instances that run, stored, pushed, and put back."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from nats_mesh import Mesh, PolicyError
from nats_mesh.config.store import ConfigStore
from nats_mesh.settings import Settings
from nats_mesh.testing import NatsServer
from nats_mesh_cli.config_given import assign, read_configuration, read_value
from nats_mesh_cli.errors import FAILED, OK, USAGE, CliError
from tests.cli.program import Background, run_many

SERVICE = """
import msgspec

from nats_mesh import Context, Service


class Pool(msgspec.Struct, frozen=True):
    size: int = 5


class Limits(msgspec.Struct, frozen=True):
    rows: int = 10
    mode: str = "plain"
    pool: Pool = Pool()


shop = Service("shop", version="1.0.0", config=Limits)
bare = Service("bare", version="1.0.0")
both = [shop, bare]


@shop.endpoint()
async def settings(ctx: Context) -> Limits:
    return ctx.config


@bare.endpoint()
async def nothing(ctx: Context) -> bool:
    return ctx.config is None
"""


def test_a_configuration_from_first_to_last(
    nats_server: NatsServer, tmp_path: Path, mesh_namespace: str
) -> None:
    """Set whole and by parts, refused where it does not fit, put back, deleted."""
    (tmp_path / "shop.py").write_text(SERVICE)
    (tmp_path / "limits.yaml").write_text("rows: 50\npool: {size: 9}\n")
    env = {"NATS_URL": nats_server.url, "MESH_NAMESPACE": mesh_namespace, "NO_COLOR": "1"}
    with Background(["run", "shop:both"], env, cwd=tmp_path) as services:
        services.wait_for("is ready", times=2)
        lines = {
            "absent": ["config", "get", "shop"],
            "whole": ["config", "set", "shop", str(tmp_path / "limits.yaml"), "--wait", "-m", "more rows"],
            "part": ["config", "set", "shop", "pool.size=3", "mode=fancy", "--wait"],
            "called": ["call", "shop.settings"],
            "unknown": ["config", "set", "shop", "row=1"],
            "wrong": ["config", "set", "shop", "rows=many"],
            "same": ["config", "set", "shop", "rows=50"],
            "dry": ["config", "set", "shop", "rows=51", "--dry-run"],
            "status": ["config", "status", "shop"],
            "undone": ["config", "undo", "shop", "--wait"],
            "shown": ["config", "get", "shop", "-o", "json"],
            "history": ["config", "history", "shop", "-o", "json"],
            "deleted": ["config", "delete", "shop", "--wait"],
            "default": ["call", "shop.settings"],
            "bare": ["config", "set", "bare", "a=1"],
            "nobody": ["config", "set", "nobody", "a=1"],
            "unchecked": ["config", "set", "nobody", "a=1", "--unchecked"],
        }
        done = dict(zip(lines, run_many(list(lines.values()), env), strict=True))
    assert (done["absent"].code, done["absent"].out) == (FAILED, "")
    assert (done["whole"].code, done["whole"].out.strip()) == (OK, "shop created")
    assert "in effect at 1 of 1 instance\n" in done["whole"].err
    assert done["part"].code == OK
    assert done["called"].json == {"rows": 50, "mode": "fancy", "pool": {"size": 3}}
    assert (done["unknown"].code, "row: is no field here; did you mean rows?" in done["unknown"].err) == (
        USAGE,
        True,
    )
    assert (done["wrong"].code, "rows: Expected `int`" in done["wrong"].err) == (USAGE, True)
    assert done["same"].out.strip() == "shop unchanged"
    assert done["dry"].out.strip() == "shop configured (dry run)"
    assert (done["status"].code, "SYNCED" in done["status"].out) == (OK, True)
    assert done["undone"].code == OK
    assert done["shown"].json == {"rows": 50, "pool": {"size": 9}}
    assert [(each["action"], each["message"]) for each in done["history"].json] == [
        ("configured", "undo of revision 2"),
        ("configured", ""),
        ("created", "more rows"),
    ]
    assert (done["deleted"].code, done["default"].json["rows"]) == (OK, 10)
    assert (done["bare"].code, "declares no configuration" in done["bare"].err) == (USAGE, True)
    assert (done["nobody"].code, "no instance of nobody runs" in done["nobody"].err) == (FAILED, True)
    assert done["unchecked"].code == OK


def test_values_are_read_as_json_or_else_as_text() -> None:
    """What a shell hands over, without quotes around quotes."""
    whole, assigned = read_configuration(["a=1", "b=true", 'c=["x"]', "d=hello there", "e.f=2", "g="], [])
    assert whole is None
    assert assigned == [("a", 1), ("b", True), ("c", ["x"]), ("d", "hello there"), ("e.f", 2), ("g", "")]
    value = {"e": {"h": 3}}
    for path, each in assigned:
        assign(value, path, each)
    assert value["e"] == {"h": 3, "f": 2}
    with pytest.raises(CliError, match="has nothing below it"):
        assign({"a": 1}, "a.b", 2)
    for path in ("a..b", "a.", "a.b."):
        with pytest.raises(CliError, match="has an empty name in it"):
            assign({}, path, 2)
    for text in ("[" * 100_000, "\udcff"):
        with pytest.raises(CliError, match="nested too deep, or no text"):
            read_value(text)


def test_all_of_it_stands_in_a_file_or_on_the_line(tmp_path: Path) -> None:
    """A JSON object, -f FILE or a file's name; single values go over it, and one whole is enough."""
    file = tmp_path / "limits.yaml"
    file.write_text("rows: 50\n")
    whole = {"rows": 50}
    assert (
        read_configuration([str(file)], [])
        == read_configuration([], [str(file)])
        == read_configuration(['{"rows": 50}'], [])
        == (whole, [])
    )
    assert read_configuration(["rows=7"], [str(file)]) == (whole, [("rows", 7)])
    for given, files, said in (
        ([], ["nope.yaml"], "nope.yaml: there is no such file$"),
        (["nope.yaml"], [], "there is no such file, and it is no name=value"),
        (["{}", "{}"], [], "once: in one file, or as one JSON object"),
        (["{}"], [str(file)], "once: in one file, or as one JSON object"),
        (["[1]"], [], "the JSON given: must hold one mapping"),
        ([], [], "say what to set"),
    ):
        with pytest.raises(CliError, match=said):
            read_configuration(given, files)
    with pytest.raises(PolicyError, match="the JSON given:"):
        read_configuration(['{"rows": '], [])


def test_what_other_programs_wrote_is_said_and_replaced(
    nats_server: NatsServer, mesh_namespace: str, tmp_path: Path
) -> None:
    """What is no configuration is no defect: it is named, not built upon or put back, and a file replaces it."""
    (tmp_path / "limits.yaml").write_text("rows: 50\n")

    async def spoil() -> None:
        settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)
        async with Mesh("ops", settings=settings, policies=False) as mesh:
            client = mesh.client
            store = ConfigStore(mesh_namespace, transport=client.transport, mux=client.mux, operator="ops")
            await store.open()
            client.transport.publish(f"$KV.{store.subjects.config_bucket}.shop.default", b"\xff", "")
            await client.transport.fence()

    anyio.run(spoil)
    lines = [
        ["config", "get", "shop"],
        ["config", "set", "shop", "rows=1", "--unchecked"],
        ["config", "set", "shop", str(tmp_path / "limits.yaml"), "--unchecked"],
        ["config", "history", "shop", "-o", "json"],
        ["config", "undo", "shop", "--unchecked"],
        ["config", "get", "shop", "-o", "json"],
    ]
    env = {"NATS_URL": nats_server.url, "MESH_NAMESPACE": mesh_namespace, "NO_COLOR": "1"}
    shown, part, whole, history, undone, after = run_many(lines, env)
    for refused in (shown, part, undone):
        assert (refused.code, "shop: revision 1 is no JSON object" in refused.err) == (FAILED, True)
    assert (whole.code, history.code) == (OK, OK), (whole.err, history.err)
    assert [each["value"] for each in history.json] == [{"rows": 50}, "\ufffd"]
    assert after.json == {"rows": 50}


def test_a_revision_beyond_the_buckets_history_comes_from_the_audit(
    nats_server: NatsServer, mesh_namespace: str
) -> None:
    """`undo --to-revision` gives back what was stored, byte for byte, and says where it comes from; a number that was
    another service's is none of this one's."""
    env = {"NATS_URL": nats_server.url, "MESH_NAMESPACE": mesh_namespace, "NO_COLOR": "1"}
    settings = Settings(servers=(nats_server.url,), namespace=mesh_namespace)

    async def write() -> list[int]:
        async with Mesh("ops", settings=settings, policies=False) as mesh:
            store = ConfigStore(
                mesh.namespace, transport=mesh.client.transport, mux=mesh.client.mux, operator="ann"
            )
            await store.open()
            await store.write("other", b"{}", expected=0)
            revisions = [0]
            for rows in range(70):
                value = b'{"rows":  %d}' % rows
                revisions.append(await store.write("shop", value, expected=revisions[-1]))
            return revisions

    async def value() -> bytes | None:
        async with Mesh("ops", settings=settings, policies=False) as mesh:
            store = ConfigStore(
                mesh.namespace, transport=mesh.client.transport, mux=mesh.client.mux, operator="ann"
            )
            return (await store.history("shop"))[-1].value

    revisions = anyio.run(write)
    undone, others = run_many(
        [
            ["config", "undo", "shop", "--to-revision", str(revisions[2]), "--unchecked"],
            ["config", "undo", "shop", "--to-revision", "1", "--unchecked"],
        ],
        env,
    )
    assert undone.code == OK, undone.err
    assert f"revision {revisions[2]} comes from the audit" in undone.err
    assert anyio.run(value) == b'{"rows":  1}'
    assert others.code == FAILED
    assert "shop has no revision 1" in others.err
