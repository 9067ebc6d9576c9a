"""Settings: the argument, then the environment, then the ``nats`` CLI's context, then the default."""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from nats_mesh.core.host_names import is_host_pattern
from nats_mesh.errors import ConfigError
from nats_mesh.model import check_name
from nats_mesh.policy.bus.cache import default_cache_dir
from nats_mesh.wire.transport import ConnectOptions

log = logging.getLogger("nats_mesh.settings")

__all__ = ["DEFAULT_SERVER", "NatsContext", "Settings", "load_context"]

DEFAULT_SERVER = "nats://127.0.0.1:4222"
_MODES = ("open", "enforced")
#: What a context that is named on purpose replaces.
_CONTEXT_REPLACES = frozenset({"NATS_URL", "NATS_CREDS", "NATS_CA", "NATS_CONTEXT", "MESH_JS_DOMAIN"})
#: What MESH_POLICIES and MESH_CACHE_DIR say where there shall be none.
_OFF = "off"
_SCHEMES = ("nats://", "tls://", "ws://", "wss://")


class NatsContext(msgspec.Struct, frozen=True):
    """The fields of a ``nats`` CLI context that matter here; the rest is ignored."""

    url: str = ""
    creds: str = ""
    user: str = ""
    password: str = ""
    token: str = ""
    nkey: str = ""
    jetstream_domain: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides how a process joins the mesh."""

    servers: tuple[str, ...] = (DEFAULT_SERVER,)
    namespace: str = "default"
    mode: str = "open"
    credentials: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    nkey_seed: str | None = None
    tls: ssl.SSLContext | None = None
    log_level: str = "INFO"
    #: Where the lines of the access log go: stdout, stderr, logger (`nats_mesh.access`) or a file; empty: stdout for
    #: services, the logger for pure clients.
    access_log: str = ""
    #: Whether interceptors run that installed packages bring along.
    plugins: bool = False
    #: The folder of policy files to follow where nothing else is said.
    policies: str | None = None
    #: Whether policies are followed on the bus where no others are given.
    follow: bool = True
    #: Where the last policies of the bus are kept for the next start; empty: nowhere.
    cache_dir: str = ""
    #: The JetStream domain in which policies, configurations, the audit and the rest are kept; empty: the server's own.
    js_domain: str = ""
    #: Where ``/metrics``, ``/healthz`` and ``/readyz`` are served: host and port (0: any free one); ``None``: nowhere.
    metrics: tuple[str, int] | None = None
    #: By which names it may be asked there, beside addresses; see :mod:`nats_mesh.core.host_names`.
    metrics_hosts: tuple[str, ...] = ()
    #: Whether spans are sent to a collector; where it is, OpenTelemetry's own variables say.
    otlp: bool = False

    @property
    def identity(self) -> tuple[str, ...]:
        """Which bus this is, and as whom: what is kept on disk of one is not another's."""
        domain = (f"$JS.{self.js_domain}",) if self.js_domain else ()
        return (*sorted(self.servers), self.user or "", self.credentials or "", *domain)

    @property
    def enforced(self) -> bool:
        """Whether identity is enforced by the server, so that foreign inboxes are refused."""
        return self.mode == "enforced"

    def options(self, name: str, *, connect_timeout_s: float = 5.0) -> ConnectOptions:
        """How ``name`` connects under these settings."""
        return ConnectOptions(
            name=name,
            servers=self.servers,
            credentials=self.credentials,
            tls=self.tls,
            user=self.user,
            password=self.password,
            token=self.token,
            nkey_seed=self.nkey_seed,
            connect_timeout_s=connect_timeout_s,
            jetstream_domain=self.js_domain,
        )

    @classmethod
    def resolve(
        cls,
        *,
        servers: str | Sequence[str] | None = None,
        namespace: str | None = None,
        credentials: str | os.PathLike[str] | None = None,
        tls: ssl.SSLContext | str | os.PathLike[str] | None = None,
        context: str | None = None,
        env: Mapping[str, str] = os.environ,
    ) -> Settings:
        """Settle every setting; what is wrong is a :class:`ConfigError` that names the source."""
        if context is not None:  # named on purpose: all of it wins over the environment
            saved = load_context(context, env)
            env = {name: value for name, value in env.items() if name not in _CONTEXT_REPLACES}
        elif servers is None and not env.get("NATS_URL"):
            saved = load_context(env.get("NATS_CONTEXT"), env)
        else:
            saved = NatsContext()
        given = servers if servers is not None else env.get("NATS_URL") or saved.url or DEFAULT_SERVER
        of_env = " (NATS_URL)" if servers is None and env.get("NATS_URL") else ""
        mode = env.get("MESH_MODE", "open")
        if mode not in _MODES:
            raise ConfigError(f"MESH_MODE is {mode!r}; use one of: {', '.join(_MODES)}")
        return cls(
            servers=_servers(given, of_env),
            namespace=check_name("namespace", namespace)
            if namespace is not None
            else check_name("namespace (MESH_NAMESPACE)", env.get("MESH_NAMESPACE") or "default"),
            mode=mode,
            credentials=_file("credentials", credentials)
            or _file("credentials (NATS_CREDS)", env.get("NATS_CREDS"))
            or _file("credentials", saved.creds),
            user=saved.user or None,
            password=saved.password or None,
            token=saved.token or None,
            nkey_seed=_seed(saved.nkey),
            tls=_tls(
                tls or env.get("NATS_CA") or saved.ca or None,
                saved.cert,
                saved.key,
                of_env=" (NATS_CA)" if not tls and env.get("NATS_CA") else "",
            ),
            log_level=_level(env.get("MESH_LOG") or "INFO"),
            access_log=_access_log(env.get("MESH_ACCESS_LOG", "")),
            plugins=_switch("MESH_PLUGINS", env.get("MESH_PLUGINS") or "on"),
            policies=_policies(env.get("MESH_POLICIES", "")),
            follow=env.get("MESH_POLICIES", "").lower() != _OFF,
            cache_dir=_cache_dir(env),
            js_domain=_domain(env.get("MESH_JS_DOMAIN") or saved.jetstream_domain),
            metrics=_metrics(env.get("MESH_METRICS_PORT", "")),
            metrics_hosts=_hosts(env.get("MESH_METRICS_HOSTS", "")),
            otlp=_otlp(env),
        )


def _metrics(said: str) -> tuple[str, int] | None:
    """Host and port: a port alone is one of every address of the machine."""
    if not said or said.lower() == _OFF:
        return None
    host, _, port = said.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if (
        not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 65536)
        or not host.isprintable()
        or any(sign in host for sign in " []")
        or (":" in host and not bracketed)
    ):
        raise ConfigError(
            f"MESH_METRICS_PORT is {said[:80]!r}; use a port such as 9464, 0 for any that is free, or host:port"
        )
    return host or "0.0.0.0", int(port)


def _hosts(said: str) -> tuple[str, ...]:
    names = tuple([name.strip().lower() for name in said.split(",") if name.strip()])
    for name in names:
        if not is_host_pattern(name):
            raise ConfigError(
                f"MESH_METRICS_HOSTS has {name[:80]!r}; use names without port such as orders or *.example.com, with "
                "commas between them, or * for any"
            )
    return names


def _otlp(env: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables name a collector that spans are to be sent to, in a way that is known here."""
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if env.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() not in ("", "otlp"):
        return False
    if not (env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        return False
    protocol = env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        log.warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL is %r: spans are sent by http/protobuf alone, so none are", protocol
        )
        return False
    return True


def _domain(name: str) -> str:
    """A JetStream domain, one token of a subject."""
    return check_name("JetStream domain (MESH_JS_DOMAIN)", name) if name else ""


def load_context(name: str | None, env: Mapping[str, str] = os.environ) -> NatsContext:
    """The ``nats`` CLI's context called ``name``, or its selected one; empty where there is none selected."""
    base = (
        Path(env.get("XDG_CONFIG_HOME") or Path(os.path.expanduser(env.get("HOME", "~")), ".config")) / "nats"
    )
    if name is None:
        selected = base / "context.txt"
        if not os.path.isfile(selected):
            return NatsContext()
        try:
            name = selected.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"nats context {os.fspath(selected)!r} cannot be read: {error}") from None
        if not name:
            return NatsContext()
    if "/" in name or name.startswith("."):
        raise ConfigError(f"context name {name!r} is not valid")
    path = base / "context" / f"{name}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=NatsContext)
    except FileNotFoundError:
        known = sorted(p.stem for p in (base / "context").glob("*.json"))
        raise ConfigError(f"no nats context {name!r}; there are: {', '.join(known) or 'none'}") from None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise ConfigError(f"nats context {name!r} cannot be read: {error}") from None


def _servers(given: str | Sequence[str], of_env: str = "") -> tuple[str, ...]:
    items = given.split(",") if isinstance(given, str) else list(given)
    result = []
    for item in items:
        url = item.strip() if isinstance(item, str) else ""
        if url and "://" not in url:
            url = f"nats://{url}"
        if not _is_address(url):
            # Of a password with a comma in it this may be the first half.
            whole = given if isinstance(given, str) and "@" in given and "@" not in item else item
            shown = _without_password(whole) if isinstance(whole, str) else whole
            raise ConfigError(
                f"server {shown!r}{of_env} is no address; use nats://host:port (or tls://, ws://, wss://)"
            )
        result.append(url)
    if not result:
        raise ConfigError("no server given; use nats://host:port")
    return tuple(result)


def _without_password(url: str) -> str:
    """Of an address that may be none: nothing of what stands before its last ``@``, with or without a scheme."""
    return re.sub(r"^(\s*\w*://)?.*@", r"\1…@", url, flags=re.DOTALL)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            url.startswith(_SCHEMES)
            and url.isprintable()
            and " " not in url
            and bool(parts.hostname)
            and parts.port != 0
        )
    except ValueError:  # a port that is none, or half an IPv6 address
        return False


def _file(what: str, path: str | os.PathLike[str] | None) -> str | None:
    if not path:
        return None
    if not os.path.isfile(path):  # nor where it may not be looked at, or where no file can have such a name
        raise ConfigError(f"{what} file {os.fspath(path)!r} does not exist, or may not be read")
    return os.fspath(path)


def _policies(path: str) -> str | None:
    if not path or path.lower() == _OFF:
        return None
    if not os.path.exists(path):
        raise ConfigError(f"MESH_POLICIES is {path!r}, and there is no such folder; off: follow none")
    return path


def _access_log(said: str) -> str:
    if said.lower() in ("", "stdout", "stderr", "logger"):
        return said.lower()
    path = os.path.abspath(said)
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path)):
        raise ConfigError(
            f"MESH_ACCESS_LOG is {said!r}: use stdout, stderr, logger, or the path of a file in a folder that exists"
        )
    return path


def _cache_dir(env: Mapping[str, str]) -> str:
    said = env.get("MESH_CACHE_DIR", "")
    if said.lower() == _OFF:
        return ""
    return os.path.abspath(said) if said else default_cache_dir(env)


def _seed(path: str) -> str | None:
    if not path:
        return None
    checked = _file("nkey", path)
    try:
        return Path(checked).read_text().strip() if checked else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"nkey file {path!r} cannot be read: {error}") from None


def _tls(tls: Any, cert: str, key: str, *, of_env: str = "") -> ssl.SSLContext | None:
    if tls is None and not cert:
        return None
    if isinstance(tls, ssl.SSLContext):
        return tls
    try:
        context = ssl.create_default_context(cafile=_file(f"CA{of_env}", tls) if tls else None)
        if cert:
            context.load_cert_chain(cert, key or None)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"TLS files cannot be used{of_env} ({tls or cert}): {error}") from None
    return context


def _switch(name: str, value: str) -> bool:
    if value.lower() not in ("on", "off"):
        raise ConfigError(f"{name} is {value!r}; use on or off")
    return value.lower() == "on"


def _level(name: str) -> str:
    level = name.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise ConfigError(f"MESH_LOG is {name!r}; use debug, info, warning, error or critical")
    return level
