"""Where settings come from, and which source wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nats_mesh import ConfigError
from nats_mesh.settings import DEFAULT_SERVER, Settings


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose nats CLI knows the contexts prod (with a password) and dev (selected)."""
    contexts = tmp_path / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "prod.json").write_text(
        json.dumps({"url": "nats://prod:4222", "user": "u", "password": "secret"})
    )
    (contexts / "dev.json").write_text(json.dumps({"url": "nats://dev:4222"}))
    (tmp_path / "nats" / "context.txt").write_text("dev\n")
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def test_nothing_set_means_this_machine(tmp_path: Path) -> None:
    """Without any source the server is the local one, the namespace default, the mode open."""
    settings = Settings.resolve(env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert (settings.servers, settings.namespace, settings.mode) == ((DEFAULT_SERVER,), "default", "open")


@pytest.mark.parametrize("said", ["", "stdout", "STDERR", "logger"])
def test_the_access_log_goes_where_it_is_said(tmp_path: Path, said: str) -> None:
    """A stream or the logger by its name, or a file; what is said of nothing is left to whoever writes."""
    env = {"XDG_CONFIG_HOME": str(tmp_path), "MESH_ACCESS_LOG": said}
    assert Settings.resolve(env=env).access_log == said.lower()
    file = str(tmp_path / "access.log")
    assert Settings.resolve(env={**env, "MESH_ACCESS_LOG": file}).access_log == file


def test_the_selected_context_is_the_last_source(home: dict[str, str]) -> None:
    """The nats CLI's selected context serves where neither argument nor environment names a server."""
    assert Settings.resolve(env=home).servers == ("nats://dev:4222",)
    assert Settings.resolve(env=home | {"NATS_URL": "nats://env:1"}).servers == ("nats://env:1",)
    assert Settings.resolve(servers="nats://arg:1", env=home).servers == ("nats://arg:1",)


def test_a_named_context_wins_whole(home: dict[str, str]) -> None:
    """A context that is named brings its own server: its password never goes to the environment's."""
    settings = Settings.resolve(context="prod", env=home | {"NATS_URL": "nats://elsewhere:1"})
    assert (settings.servers, settings.user, settings.password) == (("nats://prod:4222",), "u", "secret")


def test_an_unnamed_context_lends_no_credentials(home: dict[str, str]) -> None:
    """Where the environment names the server, a context's user and password stay out of it."""
    settings = Settings.resolve(env=home | {"NATS_URL": "nats://env:1", "NATS_CONTEXT": "prod"})
    assert (settings.user, settings.password) == (None, None)


@pytest.mark.parametrize(
    ("options", "env", "message"),
    [
        ({"namespace": ""}, {}, "it is empty"),
        ({"namespace": "a.b"}, {}, "cannot stand in it"),
        ({"servers": "http://x"}, {}, "no address"),
        ({"servers": []}, {}, "no server"),
        ({"servers": "nats://a b"}, {}, "no address"),
        ({"credentials": "/nowhere/x.creds"}, {}, "does not exist"),
        ({"context": "missing"}, {}, "there are: dev, prod"),
        ({"context": "../x"}, {}, "not valid"),
        ({}, {"MESH_MODE": "strict"}, "open, enforced"),
        ({}, {"MESH_LOG": "loud"}, "MESH_LOG"),
        ({}, {"MESH_ACCESS_LOG": "/nowhere/at/all.log"}, "stdout, stderr, logger"),
        ({}, {"MESH_ACCESS_LOG": "/tmp"}, "MESH_ACCESS_LOG"),
        ({}, {"NATS_CA": "/nowhere/ca.pem"}, r"CA \(NATS_CA\) file .* does not exist"),
        ({}, {"NATS_CREDS": "/nowhere/x.creds"}, r"credentials \(NATS_CREDS\) file .* does not exist"),
        ({}, {"NATS_URL": "http://x"}, r"server 'http://x' \(NATS_URL\) is no address"),
        ({}, {"MESH_NAMESPACE": "a b"}, r"MESH_NAMESPACE.* cannot stand in it"),
        ({}, {"MESH_JS_DOMAIN": "a.b"}, r"MESH_JS_DOMAIN.* cannot stand in it"),
        ({}, {"MESH_PLUGINS": "perhaps"}, "MESH_PLUGINS is 'perhaps'; use on or off"),
        ({}, {"MESH_POLICIES": "/nowhere"}, "MESH_POLICIES is '/nowhere'"),
    ],
)
def test_what_is_wrong_is_said(
    home: dict[str, str], options: dict[str, Any], env: dict[str, str], message: str
) -> None:
    """A setting that cannot work is a ConfigError that names it and what would do."""
    with pytest.raises(ConfigError, match=message):
        Settings.resolve(**options, env=home | env)


def test_an_empty_variable_is_none(home: dict[str, str]) -> None:
    """A variable that is set to nothing counts as not set."""
    unset = {"MESH_NAMESPACE": "", "NATS_URL": "", "MESH_LOG": "", "MESH_PLUGINS": ""}
    settings = Settings.resolve(env=home | unset)
    assert (settings.namespace, settings.log_level, settings.plugins) == ("default", "INFO", True)


@pytest.mark.parametrize(
    "url", ["u:secret@h:port", "nats://u:secret@h:port", "tls://u:secret@x@h:0", "nats://u:secret,secret@h"]
)
def test_a_password_is_not_said(home: dict[str, str], url: str) -> None:
    """What is wrong with an address is said without the password in it, whatever is wrong."""
    for options, env in (({}, {"NATS_URL": url}), ({"servers": url}, {})):
        with pytest.raises(ConfigError, match="no address") as caught:
            Settings.resolve(**options, env=home | env)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["NATS_CREDS", "NATS_CA", "MESH_POLICIES", "NATS_CONTEXT", "XDG_CONFIG_HOME"]
)
def test_a_path_that_no_file_can_have_is_none(home: dict[str, str], name: str) -> None:
    """Where the system does not even look, as for a name that is too long, the file does not exist."""
    env = home | {name: "x" * 300}
    if name == "XDG_CONFIG_HOME":
        assert Settings.resolve(env=env).servers == (DEFAULT_SERVER,)
        return
    with pytest.raises(ConfigError):
        Settings.resolve(env=env)


def test_several_servers_and_bare_hosts() -> None:
    """Servers come as a list or joined by commas; a bare host:port is a nats:// address."""
    assert Settings.resolve(servers="a:1, tls://b:2", env={}).servers == ("nats://a:1", "tls://b:2")
    assert Settings.resolve(servers=["a:1"], env={}).servers == ("nats://a:1",)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", None),
        ("off", None),
        ("9464", ("0.0.0.0", 9464)),
        ("0", ("0.0.0.0", 0)),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_where_metrics_are(said: str, found: tuple[str, int] | None) -> None:
    """A port alone is one of every address; host and port are taken as they are."""
    assert Settings.resolve(servers="a:1", env={"MESH_METRICS_PORT": said}).metrics == found


def test_names_of_the_metrics_port_are_a_list() -> None:
    """Names between commas, whatever their case; what cannot be one is a ConfigError that names the variable."""

    def hosts(said: str) -> tuple[str, ...]:
        return Settings.resolve(servers="a:1", env={"MESH_METRICS_HOSTS": said}).metrics_hosts

    assert hosts("") == ()
    assert hosts("Orders, *.Example.com,,10-0-0-1.pod ,*") == ("orders", "*.example.com", "10-0-0-1.pod", "*")
    for wrong in ("orders:9464", "http://orders", "a b", "*.*", "or*", "a..b", "-a", "x" * 300):
        with pytest.raises(ConfigError, match="MESH_METRICS_HOSTS"):
            hosts(f"orders,{wrong}")


@pytest.mark.parametrize(
    "said", ["metrics", "70000", "-1", "a b:1", "1:2:x", "9" * 5000, "[::1:9464", "::1:94"]
)
def test_a_metrics_port_that_is_none_is_said(said: str) -> None:
    """What cannot be a port is a ConfigError that names the variable."""
    with pytest.raises(ConfigError, match="MESH_METRICS_PORT"):
        Settings.resolve(servers="a:1", env={"MESH_METRICS_PORT": said})
