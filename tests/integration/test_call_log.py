"""The access log where it is written, and slow calls where they are asked for: real files, a real server."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from nats_mesh import Context, RemoteError, Service
from nats_mesh.policy import PolicySet, parse
from nats_mesh.telemetry import access_log
from nats_mesh.telemetry.access_log import AccessLine, AccessLog, Writer
from nats_mesh.telemetry.slow import SlowCall, decode_slow, decode_slow_answer
from nats_mesh_cli.bus import ask
from tests.harness import Bus, eventually, policies
from tests.stored import document, operator

pytestmark = pytest.mark.anyio

TOLD = "apiVersion: mesh/v1\nkind: Telemetry\nmetadata: {{name: told}}\nspec: {{{spec}}}\n"


def line(number: int = 1, **fields: Any) -> AccessLine:
    """A line like any other."""
    given: dict[str, Any] = {
        "ts": "2026-01-01T00:00:00.000000Z", "reporter": "source", "source_service": "web", "source_instance": None,
        "destination_service": "shop", "destination_instance": None, "endpoint": "buy", "status": "OK", "flags": None,
        "error": None, "duration_ms": 1.0, "queue_ms": 0.0, "attempt": number, "bytes_in": 0, "bytes_out": 0,
        "caller": "web", "policy": None, "trace_id": None, "span_id": None,
    }  # fmt: skip
    return AccessLine(**{**given, **fields})


def written(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file."""
    if not path.exists():
        return []
    return [json.loads(each) for each in path.read_text().splitlines()]


def shop(rules: PolicySet | Path | None) -> Service:
    """Something to call."""
    service = Service("shop", version="1.0.0", policies=rules)

    @service.endpoint(timeout=5.0)
    async def buy(what: str, ctx: Context) -> str:
        if what == "nothing":
            raise ValueError("card 4242")
        await ctx.call("shop.take", what)
        return what

    @service.endpoint()
    async def take(what: str) -> None:
        await anyio.sleep(0.05 if what == "late" else 0.0)

    return service


# -- where lines go -----------------------------------------------------------------------------------


async def test_lines_are_whole_and_in_order(tmp_path: Path) -> None:
    """Each is an object on a line of its own; nothing is left behind when it is closed."""
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    for number in range(1, 1001):
        log.write(line(number))
    log.close()
    await eventually(lambda: len(written(path)) == 1000)
    assert [each["attempt"] for each in written(path)] == list(range(1, 1001))
    assert log.dropped == 0
    assert path.stat().st_mode & 0o777 == 0o640


async def test_lines_do_not_wait_for_others(tmp_path: Path) -> None:
    """A single one is there a moment later."""
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.write(line())
    await eventually(lambda: len(written(path)) == 1)
    log.close()


async def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    """As whatever rotates logs does it; what came before stands in the old one."""
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.write(line(1))
    await eventually(lambda: len(written(path)) == 1)
    path.rename(tmp_path / "access.log.1")
    log.write(line(2))
    await eventually(lambda: len(written(path)) == 1)
    log.close()
    assert [each["attempt"] for each in written(tmp_path / "access.log.1") + written(path)] == [1, 2]


async def test_members_of_a_process_share_one_writer(tmp_path: Path) -> None:
    """The lines of one never stand inside those of another, and the thread ends with the last of them."""
    path = tmp_path / "access.log"
    logs = [AccessLog(str(path)) for _ in range(4)]
    for number in range(1, 401):
        logs[number % 4].write(line(number))
    await eventually(lambda: len(written(path)) == 400)
    threads = [each for each in threading.enumerate() if isinstance(each, Writer)]
    assert len([each for each in threads if each.destination == str(path)]) == 1
    for log in logs:
        log.close()
    await eventually(lambda: not any(each.is_alive() for each in threads))


async def test_a_reader_that_does_not_read_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What finds no room is dropped, counted and said; the event loop goes on, and so does the log afterwards."""
    monkeypatch.setattr(access_log, "MAX_WAITING", 2000)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(path))
    with caplog.at_level(logging.WARNING, "nats_mesh.telemetry"):
        for number in range(1, 20_001):
            log.write(line(number))
            if number % 500 == 0:
                await anyio.sleep(0)
        assert 10_000 < log.dropped < 20_000
        assert "lines of the access log were dropped so far" in caplog.text
        assert len(caplog.records) < 20
    seen = bytearray()

    def read() -> int:
        """How many lines have come so far."""
        try:
            seen.extend(os.read(reader, 1 << 20))
        except BlockingIOError:
            pass
        return seen.count(b"\n")

    await eventually(lambda: read() == 20_000 - log.dropped, lambda: (seen.count(b"\n"), log.dropped))
    log.write(line(7))
    log.close()
    await eventually(lambda: read() == 20_001 - log.dropped)
    os.close(reader)
    assert [json.loads(each)["attempt"] for each in seen.splitlines()][-1] == 7


async def test_a_file_that_cannot_be_written_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not once for each line; when it can be written again, lines go on."""
    folder = tmp_path / "gone"
    log = AccessLog(str(folder / "access.log"))
    with caplog.at_level(logging.WARNING, "nats_mesh.telemetry"):
        log.write(line())
        await eventually(lambda: "cannot be written" in caplog.text)
    folder.mkdir()
    log.write(line(2))
    await eventually(lambda: len(written(folder / "access.log")) == 1)
    log.close()


async def test_whoever_configures_logging_gets_the_lines(caplog: pytest.LogCaptureFixture) -> None:
    """By the logger `nats_mesh.access`, each as the message of a record."""
    log = AccessLog("logger")
    with caplog.at_level(logging.INFO, "nats_mesh.access"):
        log.write(line(3))
        await eventually(lambda: bool(caplog.records))
    log.close()
    assert json.loads(caplog.records[0].getMessage())["attempt"] == 3


# -- as policies ask for it ---------------------------------------------------------------------------


async def test_both_sides_write_as_policies_ask_for_it(bus: Bus, tmp_path: Path) -> None:
    """Over a real server: a line at the caller and one at the instance, of one trace; without the text of errors."""
    path = tmp_path / "access.log"
    rules = PolicySet.of(parse(TOLD.format(spec="accessLog: on")), namespace=bus.namespace)
    instance = await bus.serve(shop(rules), access_log=str(path))
    web = await bus.caller("shopper", policies=rules, access_log=str(path))
    assert await web.call("shop.buy", "tea") == "tea"
    with pytest.raises(RemoteError):
        await web.call("shop.buy", "nothing")
    await eventually(lambda: len(written(path)) == 6)
    found = written(path)
    assert {(each["reporter"], each["endpoint"], each["status"]) for each in found} == {
        ("destination", "buy", "OK"), ("destination", "take", "OK"), ("destination", "buy", "INTERNAL"),
        ("source", "buy", "OK"), ("source", "take", "OK"), ("source", "buy", "INTERNAL"),
    }  # fmt: skip
    (there,) = [each for each in found if each["reporter"] == "source" and each["error"]]
    assert (there["error"], there["destination_instance"]) == ("RemoteError", instance.id)
    assert "4242" not in path.read_text()
    assert len({each["trace_id"] for each in found}) == 2


async def test_a_change_of_policies_begins_and_ends_it(bus: Bus, tmp_path: Path) -> None:
    """While files say so; in between, calls are asked nothing."""
    path, folder = tmp_path / "access.log", policies(tmp_path, TOLD.format(spec="tap: off"))
    instance = await bus.serve(shop(folder), access_log=str(path))
    watching = instance.dispatcher.watching
    assert "access-log" not in watching.names
    policies(tmp_path, TOLD.format(spec="accessLog: errors, slow: 1ms"))
    await eventually(lambda: {"access-log", "slow"} <= watching.names)
    with pytest.raises(RemoteError):
        await bus.mesh.call("shop.buy", "nothing")
    await bus.mesh.call("shop.take", "tea")
    await eventually(lambda: len(written(path)) == 1)
    policies(tmp_path, TOLD.format(spec="tap: off"))
    await eventually(lambda: not {"access-log", "slow"} & watching.names)


async def test_slow_calls_are_answered_and_told(bus: Bus) -> None:
    """To whoever asks later those that are kept; to whoever listens each as it ends."""
    rules = PolicySet.of(parse(TOLD.format(spec="slow: 40ms")), namespace=bus.namespace)
    instance = await bus.serve(shop(rules))
    told: list[SlowCall] = []

    def on_slow(subject: str, reply: str, headers: bytes, payload: bytes) -> None:
        assert reply.startswith("_INBOX.shop.")
        told.append(decode_slow(payload, service="shop", instance=instance.id, namespace=bus.namespace))

    client = bus.mesh.client
    client.transport.subscribe(client.subjects.telemetry_of("slow"), on_slow)
    await client.transport.fence()
    await bus.mesh.call("shop.buy", "late")
    want = client.subjects.want("slow", "all", bus.mesh.name)
    (answer,) = (await ask(bus.mesh, want, destination="telemetry")).payloads
    kept = decode_slow_answer(answer).calls
    assert [call.endpoint for call in kept] == ["take", "buy"]
    assert [step.target for step in kept[1].steps] == ["shop.take"]
    assert told == []
    await bus.mesh.call("shop.take", "late")
    await eventually(lambda: [call.seq for call in told] == [3])


async def test_policies_of_the_store_are_followed(bus: Bus) -> None:
    """On the bus as from files: it begins with the document, and ends with it; no call is lost in between."""
    async with operator(bus.url, bus.namespace) as ops:
        instance = await bus.serve(shop(None))
        watching = instance.dispatcher.watching
        assert "slow" not in watching.names
        await ops.put(document("Telemetry", "told", {"target": {"service": "shop"}, "slow": "1us"}))
        await eventually(lambda: "slow" in watching.names)
        assert await bus.mesh.call("shop.buy", "tea") == "tea"
        await ops.put(delete=("Telemetry.told",))
        await eventually(lambda: "slow" not in watching.names)
        assert await bus.mesh.call("shop.buy", "tea") == "tea"
    written = instance._parts.written
    assert written is not None
    assert {call.endpoint for call in written.slow.recent} == {"buy", "take"}
