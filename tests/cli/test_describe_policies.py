"""What `describe` says of the chain: each layer with its parameters and their sources, or why it is not there."""

from __future__ import annotations

import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nats_mesh import Service
from nats_mesh.calling.exchange import Declared
from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.layers.stack import INBOUND, OUTBOUND
from nats_mesh.policy import PolicySet, parse
from nats_mesh.testing import MemoryMesh
from nats_mesh_cli.chain_text import duration_text
from nats_mesh_cli.describe import Look, document_of
from nats_mesh_cli.describe_text import render
from tests.cli.conftest import Shop
from tests.cli.infos import foreign_info, mesh_info
from tests.cli.program import PATIENCE_S, PROGRAM, environment

FILE = "orders.yaml"

FULL = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: orders}
spec:
  target: {service: orders}
  timeout: 1500ms
  idempotent: true
  retry:
    attempts: 3
    backoff: {initial: 10ms}
  hedge: {delay: 20ms}
  balancer: {name: least_request, bound: 2}
  ejection: {verdicts: {callers: 4}}
---
apiVersion: mesh/v1
kind: Limit
metadata: {name: slots}
spec:
  target: {service: orders, endpoints: [place]}
  concurrency: {limit: 8, leaveQueue: true}
"""

TURNED_OFF = """
apiVersion: mesh/v1
kind: Destination
metadata: {name: plain}
spec:
  retry: {attempts: 1}
  breaker: off
  hedge: off
  balancer: queue
  ejection: {base: 5s}
---
apiVersion: mesh/v1
kind: Limit
metadata: {name: slots}
spec:
  concurrency: {limit: 64, leaveQueue: false}
"""


def destination(spec: str, name: str = "orders", kind: str = "Destination", target: str = "orders") -> str:
    """A document; ``spec`` is its only field beside the target, and stands in line 5 of the document."""
    return (
        f"apiVersion: mesh/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n"
        f"  target: {{service: {target}}}\n"
    )


def described(
    text: str = "",
    what: str = "orders.place",
    *infos: InfoReply,
    caller: str | None = None,
) -> dict[str, Any]:
    """The document of ``what`` under the policies in ``text``, as JSON and back; it can be shown."""
    policies = PolicySet.of(parse(text, file=FILE)) if text else PolicySet.empty()
    look = Look(policies=policies, source="policies" if text else None, caller=caller)
    document = document_of(what, infos or [mesh_info()], 0.0, look)
    assert document is not None
    assert "None" not in render(document)
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document))
    assert made == document
    return made


def layer(document: dict[str, Any], name: str, side: str = "outbound") -> dict[str, Any]:
    """One layer of the document."""
    found: dict[str, Any] = next(each for each in document["layers"][side] if each["layer"] == name)
    return found


def sources(found: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    """Value and source of each parameter of a layer."""
    return {key: (each["value"], each["source"]) for key, each in found["parameters"].items()}


def quiet_info() -> InfoReply:
    """An instance whose endpoint declares nothing."""
    info = mesh_info()
    (endpoint,) = info.endpoints
    kept = {"mesh.wire", "mesh.namespace", "mesh.subject"}
    bare = {key: text for key, text in endpoint.metadata.items() if key in kept}
    return msgspec.structs.replace(
        info, endpoints=[msgspec.structs.replace(endpoint, metadata={**bare, "mesh.idempotent": "false"})]
    )


@pytest.mark.parametrize("text", ["", FULL, TURNED_OFF])
def test_both_sides_are_told_in_the_order_of_the_stack(text: str) -> None:
    """Every layer, present or not; each parameter has a value, a source, and the field that a policy says it with."""
    document = described(text)
    for side, positions in (("outbound", OUTBOUND), ("inbound", INBOUND)):
        layers = document["layers"][side]
        assert [(each["layer"], each["why"]) for each in layers] == [(p.name, p.why) for p in positions]
        for each in layers:
            assert each["present"] or each["reason"], each
            for parameter in each["parameters"].values():
                assert {"value", "source", "field"} <= parameter.keys()


def test_every_value_says_which_line_it_comes_from() -> None:
    """A policy by its kind, name, file and line; the endpoint where it declares it; else the default."""
    document = described(FULL)
    retry = sources(layer(document, "retry"))
    assert retry["attempts"] == (3, "Destination/orders (orders.yaml:10)")
    assert retry["backoff_initial_s"] == (0.01, "Destination/orders (orders.yaml:11)")
    assert retry["backoff_max_s"] == (0.25, "default")
    assert retry["budget_floor_per_s"] == (5.0, "default")
    assert retry["retry_on"] == (["attempt-timeout", "refused", "unavailable"], "default")
    assert retry["idempotent"] == (True, "Destination/orders (orders.yaml:8)")
    assert sources(layer(document, "deadline")) == {"timeout_s": (1.5, "Destination/orders (orders.yaml:7)")}
    balance = sources(layer(document, "balance"))
    assert balance["name"] == ("least_request", "Destination/orders (orders.yaml:13)")
    assert balance["ejection_verdicts_callers"] == (4, "Destination/orders (orders.yaml:14)")
    told = described(FULL.replace("  ejection: {", "  breaker: {verdicts: {callers: 5}}\n  ejection: {"))
    breaker = sources(layer(told, "breaker"))
    assert breaker["verdicts_callers"] == (5, "Destination/orders (orders.yaml:14)")
    assert breaker["verdicts_window_s"] == (30.0, "default")
    assert sources(layer(document, "concurrency", "inbound")) == {
        "limit": (8, "Limit/slots (orders.yaml:21)")
    }
    assert sources(layer(document, "credit", "inbound")) == {
        "leave_queue": (True, "Limit/slots (orders.yaml:21)")
    }
    assert sources(layer(document, "deadline", "inbound")) == {"default_timeout_s": (2.0, "endpoint")}


TIMEOUTS = {
    "default": (5.0, ""),
    "endpoint": (2.0, ""),
    "Destination/d (orders.yaml:5)": (3.0, destination("timeout: 3s", "d")),
    "Route/r (orders.yaml:12)": (
        4.0,
        destination("timeout: 3s", "d") + "---\n" + destination("rules: [{timeout: 4s}]", "r", "Route"),
    ),
}


@pytest.mark.parametrize("source", TIMEOUTS)
def test_a_timeout_comes_from_whoever_goes_first(source: str) -> None:
    """Route, then Destination, then the endpoint's declaration, then the default; that is what `options` say, too."""
    value, text = TIMEOUTS[source]
    document = described(text, "orders.place", quiet_info() if source == "default" else mesh_info())
    assert sources(layer(document, "deadline"))["timeout_s"] == (value, source)
    assert document["options"]["timeout_s"] == layer(document, "deadline")["parameters"]["timeout_s"]
    assert document["precedence"] == ["argument", "Route", "Destination", "function", "endpoint", "default"]


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        (TURNED_OFF, "retry", "one attempt alone, by Destination/plain (orders.yaml:6)"),
        (TURNED_OFF, "breaker", "off by Destination/plain (orders.yaml:7)"),
        (TURNED_OFF, "hedge", "off by Destination/plain (orders.yaml:8)"),
        (
            TURNED_OFF,
            "balance",
            "queue by Destination/plain (orders.yaml:9): the server's queue group chooses the instance",
        ),
        (
            TURNED_OFF,
            "attempt-timeout",
            "no perTryTimeout, and there is one attempt alone, by Destination/plain (orders.yaml:6)",
        ),
        ("", "hedge", "no policy asks for it"),
        ("", "balance", "no policy asks for it, so the server's queue group chooses the instance"),
        (
            destination("retry: {retryOn: [refused]}"),
            "attempt-timeout",
            "no perTryTimeout, and attempt-timeout is not in retryOn, by Destination/orders (orders.yaml:5)",
        ),
    ],
)
def test_a_layer_that_is_not_there_says_why(text: str, name: str, reason: str) -> None:
    """Off by a policy and its line, or asked for by none."""
    found = layer(described(text), name)
    assert (found["present"], found["reason"]) == (False, reason)


def test_what_needs_an_idempotent_endpoint_is_not_there_without_one() -> None:
    """No hedge and no time kept for another attempt; and whose word that is."""
    document = described(destination("hedge: {}"), "orders.place", quiet_info())
    asked = "Destination/orders (orders.yaml:5) asks for it, but the endpoint is not idempotent (default)"
    assert layer(document, "hedge")["reason"] == asked
    assert layer(document, "attempt-timeout")["present"] is False
    assert "surely did not run" in layer(document, "retry")["note"]
    both = described(destination("idempotent: true\n  hedge: {}"), "orders.place", quiet_info())
    assert layer(both, "hedge")["present"]
    assert layer(both, "attempt-timeout")["present"]


def test_parameters_without_effect_are_left_out_or_said() -> None:
    """A balancer's fields are shown where it looks at them or somebody set them; ejection needs a balancer."""
    shown = sources(layer(described(FULL), "balance"))
    assert shown["bound"] == (2.0, "Destination/orders (orders.yaml:13)")
    assert not {"header", "ewma_decay_s", "locality_healthy"} & shown.keys()
    hashing = described(destination("balancer: consistent_hash"))
    assert layer(hashing, "balance")["parameters"]["header"]["value"] == ""
    assert re.search(r"header +the caller's name +default", render(hashing))
    note = layer(described(TURNED_OFF), "balance")["note"]
    assert note.startswith("ejection (Destination/plain (orders.yaml:10)) has no effect")


def test_a_limit_of_the_instances_is_told_beside_that_of_the_files() -> None:
    """A policy that they do not follow yet shows; so does one of theirs that was not read here."""
    document = described(FULL)
    limit = layer(document, "concurrency", "inbound")["parameters"]["limit"]
    assert (limit["value"], limit["running"]) == (8, 64)
    assert "Limit/slots (orders.yaml:21); the instances have 64 now" in render(document)
    info = mesh_info()
    (endpoint,) = info.endpoints
    limited = {**endpoint.metadata, "mesh.concurrency": "8", "mesh.concurrency.source": "policy"}
    info = msgspec.structs.replace(info, endpoints=[msgspec.structs.replace(endpoint, metadata=limited)])
    followed = described(FULL, "orders.place", info)
    assert "instances have" not in render(followed)
    unread = layer(described("", "orders.place", info), "concurrency", "inbound")["parameters"]["limit"]
    assert (unread["value"], unread["source"]) == (8, "policy of the instances")


LIMITS = {
    "nothing": ("", (64, "endpoint")),
    "the endpoint": (
        "target: {service: orders, endpoints: [place]}\n  concurrency: {limit: 500}",
        (500, "Limit/slots (orders.yaml:6)"),
    ),
    "its service, lower": (
        "target: {service: orders}\n  concurrency: {limit: 8}",
        (8, "Limit/slots (orders.yaml:6)"),
    ),
    "its service, higher": ("target: {service: orders}\n  concurrency: {limit: 500}", (64, "endpoint")),
    "the namespace, higher": ("concurrency: {limit: 500, leaveQueue: true}", (64, "endpoint")),
    "leaving the queue alone": (
        "target: {service: orders}\n  concurrency: {leaveQueue: true}",
        (64, "endpoint"),
    ),
}


@pytest.mark.parametrize("what", LIMITS)
def test_a_limit_is_told_with_whose_number_it_is(what: str) -> None:
    """A wide one that is higher than what the endpoint declares has no part in it, nor has one without a number."""
    spec, limit = LIMITS[what]
    text = f"apiVersion: mesh/v1\nkind: Limit\nmetadata: {{name: slots}}\nspec:\n  {spec}\n" if spec else ""
    document = described(text)
    assert sources(layer(document, "concurrency", "inbound"))["limit"] == limit
    assert "instances have" not in render(document) or limit[0] != 64
    assert layer(document, "credit", "inbound")["present"] is ("leaveQueue" in spec)


def test_what_operators_and_packages_add_is_part_of_the_chain() -> None:
    """Plug-ins of the instances, and of a caller that runs; instances that drain, faults that are set."""
    faults = '[{"endpoint":"place","delay_ms":200.0,"share":1.0,"left_ms":1000.0}]'
    infos = (
        mesh_info(mesh_faults=faults, mesh_plugins_inbound="checks,signs"),
        mesh_info("orders", "BBBB", state="draining"),
        mesh_info("web", "CCCC", mesh_plugins_outbound="stamps"),
        mesh_info("bare", "DDDD"),
    )
    document = described("", "orders.place", *infos, caller="web")
    assert layer(document, "fault", "inbound")["present"]
    assert layer(document, "draining", "inbound")["note"] == "draining now: host-BBBB"
    assert sources(layer(document, "plug-ins", "inbound"))["names"][0] == ["checks", "signs"]
    assert sources(layer(document, "plug-ins"))["names"][0] == ["stamps"]
    assert "At the caller web, in the order" in render(document)
    without = layer(described("", "orders.place", *infos, caller="bare"), "plug-ins")
    assert without["reason"] == "none is installed at the caller"
    for caller in (None, "somebody"):
        assert layer(described("", "orders.place", *infos, caller=caller), "plug-ins")["present"] is None


def test_a_service_has_a_summary_for_each_endpoint() -> None:
    """One value and its source for each layer that policies change."""
    document = described(FULL, "orders", mesh_info(endpoints=("cancel", "place")))
    cancel, place = document["endpoints"]
    assert (cancel["options"]["concurrency"]["value"], place["options"]["concurrency"]["value"]) == (64, 8)
    assert place["options"]["retry_attempts"]["value"] == 3
    text = render(document)
    assert re.search(r"retry +3 attempts +Destination/orders \(orders.yaml:10\)", text)
    assert re.search(r"balancer +least_request +Destination/orders \(orders.yaml:13\)", text)


def test_what_does_not_run_is_described_as_far_as_policies_go() -> None:
    """It says that nobody serves it, and claims nothing of what the endpoint may declare."""
    document = described(FULL, "orders.other", mesh_info("stock"))
    assert (document["running"], document["instances"], document["versions"]) == (False, 0, [])
    assert sources(layer(document, "deadline"))["timeout_s"][0] == 1.5
    assert "not running: nobody serves 'orders' here" in render(document)
    declares = described(destination("hedge: {}"), "orders.other", mesh_info("stock"))
    assert layer(declares, "hedge")["present"] is None
    assert "which it says itself when it runs" in layer(declares, "hedge")["reason"]
    service = described(FULL, "orders", mesh_info("stock"))
    assert [each["endpoint"] for each in service["endpoints"]] == ["orders.place", "orders.*"]
    assert "endpoint orders.*  (any other)" in render(service)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("orders", ""),
        ("nobody", FULL),
        ("nobody.place", FULL),
        ("orders.", FULL),
        ("orders.a.b", FULL),
        ("orders.a b", FULL),
        ("", TURNED_OFF),
        (".x", TURNED_OFF),
        ("orders.place", TURNED_OFF),
    ],
)
def test_what_no_policy_names_is_not_made_up(what: str, text: str) -> None:
    """A policy for the whole namespace does not make a service exist; a name must be one."""
    policies = PolicySet.of(parse(text, file=FILE)) if text else PolicySet.empty()
    assert document_of(what, [mesh_info("stock")], 0.0, Look(policies=policies)) is None


def test_an_endpoint_that_a_running_service_has_not_is_not_there() -> None:
    """Also where a policy names it: that policy has a mistake, and the hint says so elsewhere."""
    assert document_of("orders.gone", [mesh_info()], 0.0, Look(policies=PolicySet.of(parse(FULL)))) is None


def test_services_outside_the_mesh_meet_the_callers_policies() -> None:
    """The caller's side holds for them, too; on theirs nothing is known."""
    document = described(destination("retry: {attempts: 4}", target="legacy"), "legacy.do", foreign_info())
    assert sources(layer(document, "retry"))["attempts"][0] == 4
    assert document["layers"]["inbound"] == []


def test_data_is_in_snake_case_and_durations_for_people_have_units() -> None:
    """No key of the document is spelled as in a policy; the text has 250ms and 5s, never 0.25."""
    keys = set(_keys(described(FULL)["layers"]))
    assert keys
    assert all(re.fullmatch(r"[a-z0-9_]+", key) for key in keys), keys
    text = render(described(""))
    assert re.search(r"backoff\.max +250ms +default", text)
    assert re.search(r"open +5s +default", text)
    assert re.search(r"timeout +2s +endpoint", text)


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inside in value.items():
            yield key
            yield from _keys(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _keys(inside)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.001, "1ms"), (0.25, "250ms"), (1.5, "1.5s"), (5.0, "5s"), (90.0, "90s"), (60.0, "1m"),
     (300.0, "5m"), (7200.0, "2h")],
)  # fmt: skip
def test_durations_are_short(seconds: float, text: str) -> None:
    """As policies and options take them."""
    assert duration_text(seconds) == text


def test_colour_changes_nothing_but_colour() -> None:
    """The text for a terminal is the plain one, once its escape codes are taken away."""
    document = described(FULL)
    assert re.sub(r"\x1b\[[0-9]*m", "", render(document, color=True)) == render(document)
    assert "\x1b" not in render(document)


ENGINE = {
    "nothing": "",
    "everything": FULL,
    "off": TURNED_OFF,
    "hedge": destination("hedge: {}"),
    "per try": destination("retry: {perTryTimeout: 100ms}"),
    "route": destination("rules: [{timeout: 700ms, retry: {attempts: 1}, idempotent: true}]", "r", "Route"),
    "not idempotent": destination("idempotent: false\n  hedge: {}"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("text", ENGINE.values(), ids=list(ENGINE))
async def test_the_engine_does_what_is_told(text: str, declared: bool) -> None:
    """What a caller composes for the same policies and declarations has the layers and values that are described."""
    orders = Service("orders", version="1.0.0")

    @orders.endpoint()
    async def place() -> None:
        """Nothing."""

    policies = PolicySet.of(parse(text, file=FILE)) if text else PolicySet.empty()
    async with MemoryMesh(orders) as mesh, mesh.client("web", policies=policies) as caller:
        client = caller.client
        target = client._known("orders.place")
        target.declared = Declared(2.0, True) if declared else Declared()
        client.outbound.settle(target)
        document = described(text, "orders.place", mesh_info() if declared else quiet_info())
        told = {each["layer"]: each["present"] for each in document["layers"]["outbound"]}
        idempotent = bool(target.usual.idempotent)
        retries = target.retries
        assert told["retry"] == (retries is not None and retries.rules.attempts > 1)
        assert told["breaker"] == (target.circuit is not None)
        assert told["balance"] == (target.balance is not None)
        assert told["hedge"] == (target.hedger is not None and idempotent)
        bounded = (
            retries is not None
            and retries.time_for(0.0, 1, target.timeout_s, idempotent=idempotent) < target.timeout_s
        )
        assert told["attempt-timeout"] == bounded
        assert document["options"]["timeout_s"]["value"] == target.timeout_s
        assert document["options"]["idempotent"]["value"] == idempotent


# -- as typed -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the policies."""
    made = tmp_path / "policies"
    made.mkdir()
    (made / FILE).write_text(FULL, encoding="utf-8")
    return made


def test_policies_come_from_the_option_or_the_environment(shop: Shop, folder: Path, tmp_path: Path) -> None:
    """--policies wins over MESH_POLICIES, which wins over nothing; the sources name the files."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "o.yaml").write_text(destination("timeout: 9s"), encoding="utf-8")
    from_environment = shop("describe", "orders.place", "-o", "json", env={"MESH_POLICIES": str(other)})
    option = shop.many(
        ["describe", "orders.place", "--policies", str(folder), "--from", "web", "-o", "json"],
        ["describe", "orders.place", "-o", "json"],
        ["describe", "orders.place", "-o", "yaml", "--policies", str(folder)],
        ["describe", "orders", "--policies", str(folder)],
        ["describe", "orders.place", "--policies", str(folder)],
    )
    with_option, without, as_yaml, service, endpoint = option
    assert sources(layer(from_environment.json, "deadline"))["timeout_s"] == (
        9.0,
        f"Destination/orders ({other / 'o.yaml'}:5)",
    )
    assert sources(layer(with_option.json, "deadline"))["timeout_s"] == (
        1.5,
        f"Destination/orders ({folder / FILE}:7)",
    )
    assert with_option.json["caller"] == "web"
    assert with_option.json["policies"]["count"] == 2
    assert sources(layer(without.json, "deadline"))["timeout_s"] == (2.0, "endpoint")
    assert without.json["policies"] == {"source": None, "revision": None, "count": 0}
    assert "source: Destination/orders" in as_yaml.out
    for done in option:
        assert (done.code, done.err) == (0, "")
        assert "\x1b" not in done.out
    assert re.search(r"timeout +1\.5s +Destination/orders", service.out)
    assert re.search(r"attempts +3 +Destination/orders", endpoint.out)
    assert "timeout and idempotent: what a call itself says wins" in endpoint.out


def on_terminal(shop: Shop, *arguments: str, **env: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        with open(theirs, "wb", buffering=0) as stdout:
            process = subprocess.Popen(
                [PROGRAM, *arguments], env=environment({**shop.env, "TERM": "xterm", **env}), stdout=stdout
            )
        found = b""
        try:
            while chunk := terminal.read(65_536):
                found += chunk
        except OSError:
            pass  # how Linux says that nobody has the other end open any more
        assert process.wait(timeout=PATIENCE_S) == 0
    return found.decode().replace("\r\n", "\n")


def test_no_color_is_honoured_on_a_terminal(shop: Shop, folder: Path) -> None:
    """Colours on a terminal, none with NO_COLOR or --no-color; otherwise the text is the same."""
    line = ("describe", "orders.place", "--policies", str(folder))
    colored = on_terminal(shop, *line)
    assert "\x1b[" in colored
    plain = re.sub(r"\x1b\[[0-9]*m", "", colored)
    assert on_terminal(shop, *line, NO_COLOR="1") == plain == on_terminal(shop, *line, "--no-color")


def test_what_is_wrong_is_said_with_its_place_and_a_hint(shop: Shop, folder: Path, tmp_path: Path) -> None:
    """2 for files and names that cannot be, 1 for what is not there; nothing on stdout; JSON where it was asked for."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "b.yaml").write_text(destination("tiemout: 2s"), encoding="utf-8")
    typo = tmp_path / "typo"
    typo.mkdir()
    (typo / "t.yaml").write_text(
        destination("timeout: 2s\n  target: {service: orders, endpoints: [plaec]}").rsplit("  target", 1)[0],
        encoding="utf-8",
    )
    cases = [
        (["orders.place", "--policies", str(broken)], 2, [f"{broken / 'b.yaml'}:5", "did you mean timeout?"]),
        (["orders.place", "--policies", str(tmp_path / "no")], 2, ["there is no such folder"]),
        (["orders.place", "--policies", str(folder / FILE)], 2, ["is no folder"]),
        (["orders.place", "--from", "a b"], 2, ["caller"]),
        (
            ["orders.plaec", "--policies", str(typo)],
            1,
            ["did you mean 'orders.place'?", f"{typo / 't.yaml'}:1"],
        ),
        (["ordres", "--policies", str(folder), "-n", "empty"], 1, ["did you mean 'orders'?"]),
    ]
    results = shop.many(*(["describe", *line] for line, _, _ in cases))
    for (line, code, said), done in zip(cases, results, strict=True):
        assert (done.code, done.out) == (code, ""), (line, done)
        assert all(text in done.err for text in said), (line, done.err)
        assert "Traceback" not in done.err
    as_json, absent = shop.many(
        ["describe", "orders.place", "--policies", str(broken), "-o", "json"],
        ["describe", "orders.place", "--policies", str(folder), "-n", "empty", "-o", "json"],
    )
    error = msgspec.json.decode(as_json.err)["error"]
    assert error["problems"] == [
        {"file": str(broken / "b.yaml"), "line": 5, "path": "spec.tiemout", "message": error["message"]}
    ]
    assert absent.json["running"] is False
    assert layer(absent.json, "retry")["parameters"]["attempts"]["value"] == 3
