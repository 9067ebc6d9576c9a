"""Subjects, inboxes and who may be believed: strings only."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nats_mesh.errors import ConfigError
from nats_mesh.wire.subjects import (
    Inbox,
    RpcSubject,
    Subjects,
    check_plain_subject,
    parse_inbox,
    parse_rpc,
    reply_allowed,
)

SECRET = "0123456789abcdef" * 2

names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=63)
callers = names.filter(lambda name: name != "all")


@pytest.fixture
def subjects() -> Subjects:
    """The subjects of the default namespace."""
    return Subjects("default")


def test_every_subject_is_built_as_the_contract_says(subjects: Subjects) -> None:
    """One line of the table of subjects each: what is published, and what is subscribed to."""
    assert subjects.rpc("orders", "place", "web") == "mesh.default.rpc.orders.all.place.web"
    assert subjects.rpc("orders", "place", "web", "canary") == "mesh.default.rpc.orders.canary.place.web"
    assert subjects.rpc_of("orders") == "mesh.default.rpc.orders.all.*.*"
    assert subjects.rpc_of("orders", "canary") == "mesh.default.rpc.orders.canary.*.*"
    assert subjects.direct("orders", "i1", "place", "web") == "mesh.default.direct.orders.i1.place.web"
    assert subjects.direct_of("orders", "i1") == "mesh.default.direct.orders.i1.*.*"
    assert subjects.cancel("orders", "web") == "mesh.default.cancel.orders.web"
    assert subjects.cancel_of("orders") == "mesh.default.cancel.orders.*"
    assert subjects.presence("orders", "i1") == "mesh.default.presence.orders.i1"
    assert subjects.presence_of() == "mesh.default.presence.*.*"
    assert subjects.presence_of("orders") == "mesh.default.presence.orders.*"
    assert subjects.command_of("orders") == "mesh.default.control.command.orders.*.*"
    assert subjects.want("stats", "all", "top") == "mesh.default.telemetry.want.stats.all.top"
    assert subjects.want_of == "mesh.default.telemetry.want.>"
    assert subjects.telemetry("stats", "orders", "i1") == "mesh.default.telemetry.stats.orders.i1"
    assert subjects.telemetry_of("stats") == "mesh.default.telemetry.stats.*.*"


@pytest.mark.parametrize(
    "namespace", ["", "a.b", "a b", "*", ">", "a\r\nPUB x", "all", "anonymous", "ü", "n" * 64]
)
def test_a_namespace_that_is_no_name_makes_no_subjects(namespace: str) -> None:
    """A prefix with a wildcard, a second token or a line break in it would be somebody else's subject."""
    with pytest.raises(ConfigError, match="namespace"):
        Subjects(namespace)


@given(names, names, callers, names)
def test_what_is_built_is_taken_apart_again(service: str, endpoint: str, caller: str, other: str) -> None:
    """Parsing undoes building, for requests to the queue group and to one instance."""
    subjects = Subjects("default")
    assert parse_rpc(subjects.rpc(service, endpoint, caller, other)) == RpcSubject(
        service, other, "", endpoint, caller
    )
    assert parse_rpc(subjects.direct(service, other, endpoint, caller)) == RpcSubject(
        service, "", other, endpoint, caller
    )


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "mesh.default.rpc.orders.all.place",
        "mesh.default.rpc.orders.all.place.web.more",
        "Mesh.default.rpc.orders.all.place.web",
        "mesh.default.call.orders.all.place.web",
        "mesh.default.rpc..all.place.web",
        "mesh.default.rpc.orders.all.place.",
        "mesh.default.rpc.orders.all.*.web",
        "mesh.default.rpc.orders.all.place.>",
        "mesh.default.rpc.orders.all.pl ace.web",
        "mesh.default.rpc.orders.all.place.wéb",
        "mesh.default.rpc.orders.all.place.all",
        "mesh.*.rpc.orders.all.place.web",
        "mesh..rpc.orders.all.place.web",
        f"mesh.default.rpc.orders.all.place.{'w' * 64}",
        "mesh.default.presence.orders.i1.x.y",
    ],
)
def test_what_is_no_request_subject_is_none(subject: str) -> None:
    """Anything but seven tokens of names under rpc or direct is refused whole."""
    assert parse_rpc(subject) is None


@given(st.text(max_size=80))
def test_no_text_makes_the_parsers_raise(text: str) -> None:
    """Whatever stands in a subject or a reply, the answer is a value, never an exception."""
    for each in (text, f"mesh.default.rpc.{text}", f"_INBOX.{text}"):
        parsed = parse_rpc(each)
        assert parsed is None or parsed.caller
        parse_inbox(each)
        reply_allowed(each, "web", enforced=True)


def test_an_inbox_names_caller_connection_secret_and_number() -> None:
    """Five tokens, the fourth a secret of 32 hexadecimal digits in lower case; everything else is no mesh inbox."""
    assert parse_inbox(f"_INBOX.web.C1.{SECRET}.17") == Inbox("web", "C1", SECRET, "17")
    for other in (
        f"_INBOX.web.C1.{SECRET}",
        f"_INBOX.web.C1.{SECRET}.17.x",
        f"_inbox.web.C1.{SECRET}.17",
        f"_INBOX.web.C1.{SECRET[:-1]}.17",
        f"_INBOX.web.C1.{SECRET.upper()}.17",
        f"_INBOX.web.C1.{'g' * 32}.17",
        "_INBOX.NUID",
        "",
    ):
        assert parse_inbox(other) is None


@pytest.mark.parametrize(
    ("reply", "in_open", "in_enforced"),
    [
        (f"_INBOX.web.C1.{SECRET}.1", True, True),
        ("_INBOX.web.anything", True, True),
        ("_INBOX.SomeNuid", True, False),
        ("_INBOX.SomeNuid.1", True, False),
        (f"_INBOX.other.C1.{SECRET}.1", False, False),
        (f"_INBOX.webb.C1.{SECRET}.1", False, False),
        ("_INBOX.web", True, False),
        ("_INBOX.web.", False, False),
        ("_INBOX.", False, False),
        ("_INBOX", False, False),
        ("_R_.abc.def", False, False),
        ("$JS.ACK.s.c.1.1.1.1.1", False, False),
        ("mesh.default.rpc.orders.all.place.web", False, False),
        ("", False, False),
    ],
)
def test_a_message_is_believed_by_its_publishers_inbox(reply: str, in_open: bool, in_enforced: bool) -> None:
    """One's own inbox always, a foreign one only where identity is merely claimed, another member's never."""
    assert reply_allowed(reply, "web", enforced=False) is in_open
    assert reply_allowed(reply, "web", enforced=True) is in_enforced


@pytest.mark.parametrize(
    "subject", ["a", "orders.new", "$SRV.PING", "a-b_c.$d", "ü.x", "s" * 1024, "ü" * 512]
)
def test_a_plain_subject_is_any_concrete_one(subject: str) -> None:
    """Foreign systems name their subjects as they like."""
    assert check_plain_subject(subject) == subject


@pytest.mark.parametrize(
    "subject",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a.*",
        "a.>",
        ">",
        "a\r\nPUB b 1",
        "a\t",
        "a\x7f",
        "a\u00a0b",
        "s" * 1025,
        "ü" * 513,
        "😀" * 1000,
        "a\ud800",
    ],
)
def test_a_plain_subject_without_wildcards_spaces_and_empty_tokens(subject: str) -> None:
    """What a server would refuse, misread or spread is refused when it is named."""
    with pytest.raises(ConfigError, match="subject"):
        check_plain_subject(subject)
