"""Files of recorded calls: what is read back, and what is said of what cannot be."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.core.envelope import RecordedCall
from nats_mesh.errors import ConfigError
from nats_mesh.policy.whatif import recording as module
from nats_mesh.policy.whatif.recording import (
    FORMAT,
    MAX_LINE,
    End,
    Header,
    Recording,
    encode_line,
    read_recording,
)
from nats_mesh.telemetry.tap_messages import TapCall, TapMessage, recorded_call
from nats_mesh_cli import record as recorder

HEADER = Header(
    format=FORMAT, namespace="default", started="2026-01-01T00:00:00.000000Z", sample=0.5, headers=("a",)
)
CALL = RecordedCall(
    at="2026-01-01T00:00:01.000000Z", service="shop", instance="i1", version="1.0.0", endpoint="buy", caller="web",
    route="all", status="OK", duration_s=0.25, headers=(("a", "1"),), concurrency=7,
)  # fmt: skip
MESSAGE = TapMessage(instance="i1", service="shop", version="1.0.0", namespace="default", seq=1)
END = End(ended="2026-01-01T00:00:02.000000Z", seen=4, recorded=2, dropped=1, lost=1, ignored=3)


def test_a_recording_is_read_as_it_was_written() -> None:
    """Header, calls, end; blank lines are nothing."""
    lines = [encode_line(HEADER), encode_line(CALL), b"\n", encode_line(CALL), encode_line(END)]
    found = read_recording(lines)
    assert (found.header, found.calls, found.end) == (HEADER, (CALL, CALL), END)
    assert (found.damaged, found.damaged_lines) == ((), 0)
    assert all(line.count(b"\n") == 1 for line in lines)


def test_without_a_last_line_it_was_cut_off() -> None:
    """And what is there counts all the same."""
    assert read_recording([encode_line(HEADER), encode_line(CALL)]).end is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"at":"2026-01', "truncated"),
        (b"\xff\xfe\n", "malformed"),
        (b"[]\n", "Expected `object`"),
        (encode_line(CALL).replace(b"0.25", b"-1"), "duration_s"),
        (encode_line(CALL).replace(b'"buy"', b'"a b"'), "endpoint"),
        (encode_line(CALL).replace(b"2026-01-01", b"2026-02-30"), "day is out of range"),
        (encode_line(CALL).replace(b"2026-01-01", b"0000-00-00"), "year 0 is out of range"),
        (encode_line(CALL).replace(b'"service":"shop",', b""), "service"),
        (b"{" + b" " * MAX_LINE + b"}\n", f"at most {MAX_LINE} are read"),
        (b"\x1b[2J{}\n", "malformed"),
    ],
)
def test_a_damaged_line_is_named_by_its_number(line: bytes, reason: str) -> None:
    """It is left out and counted; the others count."""
    found = read_recording([encode_line(HEADER), encode_line(CALL), line, encode_line(CALL)])
    assert len(found.calls) == 2
    assert found.damaged_lines == 1
    (damaged,) = found.damaged
    assert damaged.line == 3
    assert reason in damaged.reason
    assert damaged.reason.isprintable()


def test_of_many_damaged_lines_the_first_are_named() -> None:
    """All of them are counted."""
    found = read_recording([encode_line(HEADER), *[b"x\n"] * 1000])
    assert (len(found.damaged), found.damaged_lines) == (20, 1000)


@pytest.mark.parametrize("line", [b"", b"\n", b"hello", b"{}", encode_line(CALL), encode_line(END), b"\xff"])
def test_what_is_no_recording_is_refused(line: bytes) -> None:
    """With what would make one."""
    with pytest.raises(ConfigError, match=r"calls.jsonl:1: is no recording: .*; nats-mesh record makes one"):
        read_recording([line], file="calls.jsonl")


def test_a_later_format_is_refused() -> None:
    """Rather than misread."""
    later = encode_line(HEADER).replace(b'"format":1', b'"format":2')
    with pytest.raises(ConfigError, match="is a recording of format 2, and this version reads up to 1"):
        read_recording([later])


def test_a_recording_is_no_larger_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few calls are in it."""
    monkeypatch.setattr(module, "MAX_TOTAL", 1000)
    with pytest.raises(ConfigError, match=r"^r\.jsonl:\d+: more than 0 MiB; record fewer"):
        read_recording([encode_line(HEADER), *[b" " * 100 + b"\n"] * 11], file="r.jsonl")


def test_a_recording_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many calls it is refused, with what to do."""
    monkeypatch.setattr(module, "MAX_CALLS", 3)
    with pytest.raises(ConfigError, match=r"r\.jsonl:5: more than 3 calls; record fewer with --sample"):
        read_recording([encode_line(HEADER), *[encode_line(CALL)] * 4], file="r.jsonl")


class Written:
    """The file of a recording."""

    path = "r.jsonl"

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.lines += data.splitlines(keepends=True)


class Rig:
    """A recorder without a bus, what it writes, and what it says."""

    def __init__(self) -> None:
        self.mesh = SimpleNamespace(namespace="default", settings=SimpleNamespace(enforced=False))
        self.written = Written()
        self.said: list[str] = []
        out = SimpleNamespace(note=lambda text, style: self.said.append(text))
        self.recorder = recorder._Recorder(self.mesh, recorder.Plan(), self.written, out)  # type: ignore[arg-type]
        self.written.write(encode_line(HEADER))

    def hear(self, *calls: TapCall) -> None:
        """An instance tells of these, and they are written."""
        self.recorder._taken.take(
            TapMessage(
                instance="i1", service="shop", version="1.0.0", namespace="default", seq=1,
                seen=len(calls), calls=calls, filtered=True,
            )
        )  # fmt: skip
        self.recorder._flush()

    def read(self) -> Recording:
        """What a reader finds once the recording has ended."""
        self.written.write(encode_line(recorder._end(self.recorder._taken.counts)))
        return read_recording(self.written.lines)


def told(**fields: object) -> TapCall:
    """A call as an instance tells of it."""
    call = TapCall(
        at=CALL.at, endpoint="buy", caller="web", route="all", status="OK", duration_s=0.25, trace="0" * 32
    )
    return msgspec.structs.replace(call, **fields)


def test_a_recording_that_came_to_its_end_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls come at once, and while the last ones are waited for: those beyond are counted as dropped."""
    for part in (module, recorder):
        monkeypatch.setattr(part, "MAX_CALLS", 3)
    rig = Rig()
    for calls in (2, 5, 1):
        rig.hear(*[told()] * calls)
    found = rig.read()
    assert len(found.calls) == 3
    assert found.end is not None
    assert (found.end.seen, found.end.recorded, found.end.dropped) == (8, 3, 5)


@pytest.mark.anyio
async def test_a_recording_of_large_calls_ends_where_it_can_still_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its size, whatever the number of calls, with a word of why; its last line finds room, too."""
    limit = 64 << 10
    for part in (module, recorder):
        monkeypatch.setattr(part, "MAX_TOTAL", limit)
    rig = Rig()
    large = told(headers=tuple((f"h{n}", "v" * 200) for n in range(20)))
    for calls in (5, 20, 1):
        rig.hear(*[large] * calls)
    rig.hear(told())
    await rig.recorder._write()
    assert rig.said == ["a recording has at most 0 MiB: it ends here"]
    found = rig.read()
    size = sum(map(len, rig.written.lines[1:]))
    assert limit - len(encode_line(found.calls[0])) - recorder._END_ROOM < size <= limit
    assert found.end is not None
    assert (found.end.seen, found.end.recorded) == (27, len(found.calls))
    assert found.end.dropped == 27 - len(found.calls)


def test_a_call_that_no_reader_takes_is_not_written() -> None:
    """Its line would be called damaged; it counts as dropped, and the others are there."""
    rig = Rig()
    longest = told(headers=tuple((f"{n}" + "\U0001f600" * 254, "\U0001f600" * 256) for n in range(32)))
    assert len(encode_line(recorded_call(longest, MESSAGE))) > MAX_LINE
    rig.hear(told(), longest, told())
    found = rig.read()
    assert (len(found.calls), found.damaged_lines) == (2, 0)
    assert found.end is not None
    assert (found.end.recorded, found.end.dropped) == (2, 1)


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_whatever_the_lines_are_reading_ends(lines: list[bytes]) -> None:
    """Every line is a call, an end, blank, or damaged."""
    found = read_recording([encode_line(HEADER), *lines])
    assert len(found.calls) + found.damaged_lines <= len(lines)
