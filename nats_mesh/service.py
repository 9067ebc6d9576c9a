"""What a team writes: a service and its endpoints."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import msgspec

from nats_mesh.config.live import Configuration
from nats_mesh.config.value import Declared, describe_config
from nats_mesh.core.presence import MAX_ENDPOINTS, check_labels, check_version, check_weight
from nats_mesh.endpoint import DEFAULT_CONCURRENCY, Endpoint, describe_handler
from nats_mesh.errors import ApplicationError, ConfigError
from nats_mesh.following import Policies, check_policies
from nats_mesh.model import Interceptor, check_interceptors, check_name
from nats_mesh.wire.codecs import check_codec
from nats_mesh.wire.subjects import QUEUE

__all__ = ["Service"]

F = TypeVar("F", bound=Callable[..., Any])


class Service:
    """A named service: endpoints by decorator, everything else by option.

    ``name`` is what callers use, ``version`` a SemVer (``"1.2.0"``), ``labels`` select subsets; of them ``zone`` says
    where it runs, and ``weight`` how many calls it gets where callers choose instances (1 where there is none).
    ``lifespan`` is a function from the service to an async context manager; what it yields is
    ``ctx.state``. One that takes a second argument gets the configuration in it, a
    :class:`~nats_mesh.Configuration`, before anything is served: where ``config`` is declared also if that argument has
    a default, which holds where none is. In ``*args``, or by a keyword, it is never given.
    ``interceptors`` run around every handler, the first outermost. ``instance`` fixes
    the instance's id where a platform hands one out; otherwise each start gets a new one. ``config`` is the
    struct of its configuration, kept on the bus; its handlers read ``ctx.config``. ``servers``, ``namespace``,
    ``credentials`` and ``tls`` win over the environment.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str,
        labels: Mapping[str, str] | None = None,
        namespace: str | None = None,
        servers: str | Sequence[str] | None = None,
        codec: str = "json",
        lifespan: Callable[[Service], AbstractAsyncContextManager[Any]]
        | Callable[[Service, Configuration[Any]], AbstractAsyncContextManager[Any]]
        | None = None,
        credentials: str | None = None,
        tls: Any = None,
        policies: Policies | None = None,
        interceptors: Sequence[Interceptor] = (),
        description: str = "",
        instance: str | None = None,
        config: type[msgspec.Struct] | None = None,
    ) -> None:
        self.name = check_name("service", name)
        try:
            self.version = check_version(version)
            self.labels = check_labels(dict(labels or {}))
            check_weight(self.labels)
        except ConfigError as error:
            raise ConfigError(f"service {name!r}: {error}") from None
        self.namespace = None if namespace is None else check_name("namespace", namespace)
        self.servers = servers
        self.codec = check_codec(codec)
        self.lifespan: Callable[..., AbstractAsyncContextManager[Any]] | None = lifespan
        self.credentials = credentials
        self.tls = tls
        self.interceptors = check_interceptors(name, interceptors)
        self.description = description
        self.instance = None if instance is None else check_name("instance", instance)
        self.endpoints: dict[str, Endpoint] = {}
        #: What it declares as its configuration.
        self.config = describe_config(name, config)
        #: Whether its lifespan takes the configuration, too.
        self.lifespan_takes_config = _takes_config(name, lifespan, self.config)
        #: The policies that its instances follow; ``None``: those of the settings.
        self.policies = check_policies(f"service {name!r}", policies)

    def endpoint(
        self,
        name: str | Callable[..., Any] | None = None,
        *,
        timeout: float | None = None,
        idempotent: bool = False,
        concurrency: int = DEFAULT_CONCURRENCY,
        raises: tuple[type[ApplicationError], ...] | type[ApplicationError] = (),
        codec: str | None = None,
        subject: str | None = None,
        queue: str = QUEUE,
        duplicates: str = "shared",
    ) -> Callable[[F], F]:
        """Serve a function. It stays an ordinary function; a signature that cannot work is refused here.

        ``timeout`` (seconds) is what callers get who ask for nothing else, ``idempotent`` says that
        running twice does no harm, ``concurrency`` how many run at a time (the next is refused at once),
        ``raises`` which application errors belong to the contract. ``subject`` and ``queue`` serve a plain
        NATS subject of an existing system as well.
        """
        if callable(name):
            raise ConfigError(f"{self.name}: write @{self.name}.endpoint() with parentheses")
        locals_ = sys._getframe(1).f_locals

        def register(handler: F) -> F:
            endpoint = describe_handler(
                self.name,
                handler,
                name=name,
                timeout=timeout,
                idempotent=idempotent,
                concurrency=concurrency,
                raises=raises if isinstance(raises, tuple) else (raises,),
                codec=codec or self.codec.name,
                subject=subject,
                queue=queue,
                duplicates=duplicates,
                locals_=locals_,
            )
            if endpoint.name in self.endpoints:
                raise ConfigError(
                    f"{self.name} has an endpoint {endpoint.name!r} already; give this one another name="
                )
            for other in self.endpoints.values():
                if endpoint.subject is not None and endpoint.subject == other.subject:
                    raise ConfigError(
                        f"{self.name}: {other.name!r} serves the subject {endpoint.subject!r} already"
                    )
            if len(self.endpoints) >= MAX_ENDPOINTS:
                raise ConfigError(f"{self.name} has {MAX_ENDPOINTS} endpoints; split the service")
            self.endpoints[endpoint.name] = endpoint
            return handler

        return register

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then drain: finish what is held, take nothing new. Blocks."""
        from nats_mesh.runner import run

        run(self)

    def __repr__(self) -> str:
        return f"<Service {self.name} {self.version}, {len(self.endpoints)} endpoints>"


def _takes_config(service: str, lifespan: Callable[..., Any] | None, declared: Declared | None) -> bool:
    """Whether ``lifespan`` gets a configuration beside the service; :class:`ConfigError` where it cannot be called.

    It is the second argument that can be given by its place. One with a default gets it where there is one to give.
    """
    if lifespan is None:
        return False
    try:
        parameters = list(inspect.signature(lifespan).parameters.values())
    except (TypeError, ValueError):  # something that is called, and does not say how
        return False
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [each for each in parameters if each.kind in places]
    asked = [each.name for each in taken if each.default is each.empty]
    named = [
        each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty
    ]
    if named:
        raise ConfigError(
            f"service {service!r}: lifespan takes {', '.join(named)} by keyword alone, and gets nothing by keyword; "
            "the configuration is its second argument"
        )
    if len(asked) > 2:
        raise ConfigError(
            f"service {service!r}: lifespan takes the service, and its configuration where it wants that; "
            f"this one takes {', '.join(asked)}"
        )
    if len(asked) == 2 and declared is None:
        raise ConfigError(
            f"service {service!r}: its lifespan takes a configuration ({asked[1]}), and the service declares none: "
            "give it config="
        )
    return declared is not None and len(taken) > 1
