"""How long whoever looks once listens: nothing is empty because it was looked at too early."""

from __future__ import annotations

import anyio
import pytest
from msgspec.structs import replace

from nats_mesh.telemetry.snapshots import Snapshot
from nats_mesh.testing import run_virtual
from nats_mesh_cli.demo.state import Size
from nats_mesh_cli.heard import KNOWN_S, listened, untold
from nats_mesh_cli.top.model import Data
from nats_mesh_cli.top.reducing import reduce
from nats_mesh_cli.top.state import start
from nats_mesh_cli.top.view import render
from tests.cli.top_data import EMPTY, MESH


class Mesh:
    """A mesh of which something is heard after ``heard_s``, and all of it ``settles_s`` after somebody asks."""

    def __init__(self, heard_s: float, settles_s: float = 0.0) -> None:
        self._heard_s = heard_s
        self._settles_s = settles_s
        self._begun = anyio.current_time()

    def snapshot(self) -> Snapshot:
        """Empty until then."""
        return MESH if anyio.current_time() - self._begun >= self._heard_s else EMPTY.mesh

    async def news(self, timeout_s: float) -> bool:
        """Observers hear themselves all the time."""
        await anyio.sleep(min(0.1, timeout_s))
        return True

    async def settled(self, timeout_s: float) -> bool:
        """As long as that takes."""
        await anyio.sleep(min(timeout_s, self._settles_s))
        return self._settles_s <= timeout_s


@pytest.mark.parametrize(
    ("heard_s", "listen_s", "over_s"),
    [(0.0, 1.0, 1.0), (0.5, 1.0, 1.0), (1.5, 1.0, 1.5), (99.0, 1.0, KNOWN_S), (99.0, 5.0, 5.0)],
)
def test_it_listens_on_while_nobody_is_heard(heard_s: float, listen_s: float, over_s: float) -> None:
    """As long as it is told to; where nothing was heard by then until something is, or anybody would have told."""

    async def look() -> float:
        begun = anyio.current_time()
        assert await listened(Mesh(heard_s), listen_s)
        return anyio.current_time() - begun

    assert run_virtual(look) == pytest.approx(over_s, abs=0.11)


@pytest.mark.parametrize(
    ("late", "said"),
    [
        ([("orders", "i1")], "note: orders i1 had not told"),
        ([("orders", "i2"), ("cart", "i1")], "note: cart i1, orders i2 had not told"),
        ([("orders", f"i{n}") for n in range(4)], "note: orders i0, orders i1, orders i2 and 1 other had not told"),
        ([("orders", f"i{n}") for n in range(9)], "note: orders i0, orders i1, orders i2 and 6 others had not told"),
    ],
)  # fmt: skip
def test_who_has_not_told_in_time_is_named(late: list[tuple[str, str]], said: str) -> None:
    """Some of them, and how many there are."""
    assert untold(late).startswith(said)


def test_who_has_not_told_in_time_is_not_waited_for_longer() -> None:
    """And that is said. It is waited for while it is listened anyway."""

    async def look(settles_s: float) -> tuple[bool, float]:
        begun = anyio.current_time()
        complete = await listened(Mesh(0.0, settles_s), 1.0, settle_s=2.0)
        return complete, round(anyio.current_time() - begun, 3)

    assert run_virtual(look, 0.5) == (True, 1.0)
    assert run_virtual(look, 1.5) == (True, 1.5)
    assert run_virtual(look, 9.0) == (False, 2.0)


def shown(data: Data, *keys: str) -> str:
    """What the view says."""
    state = start(data, Size(100, 24))
    for key in keys:
        state = reduce(state, key)
    return render(state, state.size).plain


EARLY = replace(EMPTY, settled=False, mesh=replace(EMPTY.mesh, namespace="shop"))


@pytest.mark.parametrize(
    ("key", "word"), [("1", "services"), ("2", "calls"), ("3", "instances"), ("6", "happened")]
)
def test_the_view_does_not_call_empty_what_it_has_only_begun_to_hear(key: str, word: str) -> None:
    """It says that it listens and to whom, as long as somebody may be there; then, that nobody is."""
    early, late = shown(EARLY, key), shown(replace(EARLY, settled=True), key)
    assert "listening to everybody in namespace shop:" in early
    assert not denied(early, word)
    assert "listening" not in late
    assert denied(late, word)


def denied(text: str, word: str) -> bool:
    """Whether it is said that there is nothing of something."""
    return f"no {word} yet" in text or f"nothing has {word}" in text


def test_what_is_there_and_what_is_filtered_is_shown_at_once() -> None:
    """Early or not."""
    early = Data(mesh=MESH, settled=False)
    assert shown(early) == shown(Data(mesh=MESH))
    assert "has 'nobody' in it" in shown(early, "/", *"nobody", "enter")
    assert "listening" not in shown(early, "/", *"nobody", "enter")
