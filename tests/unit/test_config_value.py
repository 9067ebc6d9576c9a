"""What a service declares as its configuration, and which values it takes."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh import ConfigError
from nats_mesh.config.value import Declared, describe_config


class Pool(msgspec.Struct, frozen=True):
    """Something further down."""

    size: int = 5


class Cat(msgspec.Struct, tag="cat"):
    """One of two, told by their tag."""

    lives: int = 9


class Dog(msgspec.Struct, tag="dog"):
    """The other one."""

    bones: int = 1


@dataclasses.dataclass
class Plain:
    """No struct."""

    depth: int = 1


class Hint(TypedDict, total=False):
    """Nor this."""

    width: int


class Node(msgspec.Struct):
    """A type that holds itself."""

    below: list[Node] = []
    name: str = ""


class All(msgspec.Struct, rename="camel"):
    """Every way to hold something."""

    one_pool: Pool = Pool()
    maybe: Pool | None = None
    pools: list[Pool] = []
    spare: list[Pool] | None = None
    either: dict[str, int] | list[Pool] | int = 0
    named: dict[str, Pool] = {}
    pair: tuple[int, Pool] = (1, Pool())
    pet: Cat | Dog | None = None
    plain: Plain = msgspec.field(default_factory=Plain)
    hint: Hint | None = None
    anything: Any = None
    tree: Node | None = None


GOOD: list[bytes] = [
    b"{}",
    b'{"onePool": {"size": 1}, "maybe": {"size": 2}, "pools": [{"size": 3}, {}], "named": {"x y": {"size": 4}}}',
    b'{"spare": [{"size": 1}, {}], "either": [{"size": 2}]}',
    b'{"pair": [1, {"size": 1}], "pet": {"type": "dog", "bones": 3}, "plain": {"depth": 3}, "hint": {"width": 1}}',
    b'{"anything": {"whatever": [{"size": 1, "siez": 2}]}, "tree": {"below": [{"below": [], "name": "x"}]}}',
]


@pytest.mark.parametrize("value", GOOD)
def test_what_fits_is_taken(value: bytes) -> None:
    """Every name is one that its type knows, or stands where anything may."""
    assert isinstance(Declared("shop", All).decode(value), All)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b'{"one_pool": {}}', "one_pool: is no field here; did you mean onePool"),
        (b'{"onePool": {"siez": 1}}', "onePool.siez: is no field here; did you mean size"),
        (b'{"maybe": {"siez": 1}}', "maybe.siez: is no field here"),
        (b'{"pools": [{}, {"siez": 1}]}', r"pools\[1\].siez: is no field here"),
        (b'{"spare": [{}, {"siez": 1}]}', r"spare\[1\].siez: is no field here; did you mean size"),
        (b'{"either": [{"siez": 1}]}', r"either\[0\].siez: is no field here"),
        (b'{"named": {"a": {"siez": 1}}}', "named.a.siez: is no field here"),
        (b'{"pair": [1, {"siez": 1}]}', r"pair\[1\].siez: is no field here"),
        (b'{"pet": {"type": "cat", "bones": 1}}', "pet.bones: is no field here; there are: lives"),
        (b'{"plain": {"dept": 1}}', "plain.dept: is no field here"),
        (b'{"hint": {"widht": 1}}', "hint.widht: is no field here"),
        (
            b'{"tree": {"below": [{"below": [{"nmae": ""}]}]}}',
            r"tree.below\[0\].below\[0\].nmae: is no field",
        ),
    ],
)
def test_a_misspelt_name_is_refused_wherever_it_stands(value: bytes, said: str) -> None:
    """Passed over, it would be a default in silence."""
    with pytest.raises(ConfigError, match=said):
        Declared("shop", All).decode(value)


@given(value=st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode)))
def test_any_bytes_are_a_value_or_a_config_error(value: bytes) -> None:
    """Whoever may write to the store may write anything."""
    try:
        found = Declared("shop", All).decode(value)
    except ConfigError:
        return
    assert isinstance(found, All)


@pytest.mark.parametrize("depth", [50, 300, 900, 5000])
def test_what_is_nested_without_end_is_refused(depth: int) -> None:
    """Also where its type could hold it."""
    value = b'{"tree":' + b'{"below":[' * depth + b"{}" + b"]}" * depth + b"}"
    taken = True
    try:
        Declared("shop", All).decode(value)
    except ConfigError:
        taken = False
    assert taken or depth > 50
    assert not taken or depth < 5000


def test_a_struct_that_refuses_its_own_defaults_has_none() -> None:
    """That is a reason to give, and no defect; the value that it takes is taken."""

    class Url(msgspec.Struct):
        url: str = ""

        def __post_init__(self) -> None:
            if not self.url:
                raise ValueError("url must be said")

    declared = Declared("shop", Url)
    assert declared.default() is None
    assert declared.undefined == "the defaults of Url do not hold (ValueError: url must be said)"
    assert declared.decode(b'{"url": "x"}').url == "x"


def test_a_struct_with_a_tag_is_told_by_it() -> None:
    """The tag is a name that may stand there."""
    assert Declared("shop", Cat).decode(b'{"type": "cat", "lives": 3}').lives == 3


def test_a_struct_that_is_written_as_a_list_is_no_configuration() -> None:
    """Nothing would ever fit it."""

    class Row(msgspec.Struct, array_like=True):
        size: int = 1

    with pytest.raises(ConfigError, match="Row is array_like"):
        describe_config("shop", Row)
