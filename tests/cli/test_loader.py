"""MOD:APP to services, and every way to get it wrong."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nats_mesh_cli.errors import CliError
from nats_mesh_cli.loader import load_services, split_target

GOOD = """
from nats_mesh import Service
orders = Service("orders", version="1.0.0")
stock = Service("stock", version="1.0.0")
both = [orders, stock]
none = ()
class Box:
    inner = stock
def place(): ...
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a module and returns its name; path and module table are as before afterwards."""
    path, names = list(sys.path), set(sys.modules)

    def make(text: str) -> str:
        name = f"m{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    yield make
    sys.path[:] = path
    for name in set(sys.modules) - names:
        if name.startswith("m") and len(name) == 33:
            del sys.modules[name]


def test_a_service_a_list_and_an_inner_name(write: Write, tmp_path: Path) -> None:
    """APP is a Service, a list or tuple of them, or found inside something."""
    name = write(GOOD)
    assert [s.name for s in load_services([f"{name}:orders"], tmp_path)] == ["orders"]
    assert [s.name for s in load_services([f"{name}:both"], tmp_path)] == ["orders", "stock"]
    assert [s.name for s in load_services([f"{name}:Box.inner", f"{name}:orders"], tmp_path)] == [
        "stock",
        "orders",
    ]


@pytest.mark.parametrize(
    ("target", "said", "hint"),
    [
        ("{m}", "does not say which", "Services there: orders, stock"),
        ("{m}:ordres", "has no 'ordres'", "did you mean 'orders'? Services there: orders, stock"),
        ("{m}:place", "is the function place", "Services there: orders, stock"),
        ("{m}:Box", "is the class Box", "Services there"),
        ("{m}:none", "empty list", ""),
        ("nowhere_at_all:x", "no module 'nowhere_at_all'", "--app-dir"),
        ("a/b.py:x", "not the file", "write a.b:x"),
        ("a b:x", "is no MOD:APP", "shop.app:orders"),
        (":x", "is no MOD:APP", "shop.app:orders"),
    ],
)
def test_mistakes_say_what_is_there(target: str, said: str, hint: str, write: Write, tmp_path: Path) -> None:
    """Exit code 2, what is wrong, and which Services the module has."""
    with pytest.raises(CliError) as caught:
        load_services([target.format(m=write(GOOD))], tmp_path)
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.code == 2


def test_a_service_named_twice_is_refused(write: Write, tmp_path: Path) -> None:
    """Two instances in one process would be a mistake."""
    name = write(GOOD)
    with pytest.raises(CliError, match="named twice"):
        load_services([f"{name}:orders", f"{name}:both"], tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", "SyntaxError"),
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("\n1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("from nats_mesh import Service\nService('a b', version='1.0.0')", "service name 'a b'"),
    ],
)
def test_a_module_that_breaks_says_where(text: str, said: str, write: Write, tmp_path: Path) -> None:
    """The error of the user's own code, with file and line, in one line."""
    name = write(text)
    with pytest.raises(CliError) as caught:
        load_services([f"{name}:x"], tmp_path)
    assert said in caught.value.message
    assert f"{name}.py, line" in caught.value.message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """--app-dir must exist."""
    with pytest.raises(CliError, match="no such folder"):
        load_services(["a:b"], tmp_path / "none")


def test_split_target() -> None:
    """The attribute may be missing; that is for the module to answer."""
    assert split_target("a.b:c.d") == ("a.b", "c.d")
    assert split_target("a.b") == ("a.b", "")
