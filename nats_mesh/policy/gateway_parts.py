"""HTTP into the mesh and out of it: `Gateway`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, UnsetType

from nats_mesh.policy import formats, kinds
from nats_mesh.policy.kinds import about
from nats_mesh.policy.parts import Metadata, Part
from nats_mesh.policy.routing_parts import HeaderMatch

__all__ = ["Cors", "Egress", "Gateway", "GatewaySpec", "HttpRoute", "Ingress", "Tls"]


class Tls(Part, frozen=True, kw_only=True):
    """How clients connect by TLS. Files are those of the gateway, read again when they change."""

    certificate: Annotated[str, about("The certificate and its chain (PEM).", formats.FILE, required=True)]
    key: Annotated[str, about("Its private key (PEM).", formats.FILE, required=True)]
    client_ca: Annotated[
        str | UnsetType,
        about(
            "Clients need a certificate of one of these authorities (PEM).",
            formats.FILE,
            default="they need none",
        ),
    ] = UNSET
    min_version: Annotated[
        Literal["1.2", "1.3"] | UnsetType,
        about(
            "The oldest version of TLS, in quotes.",
            formats.word("'1.2' or '1.3'", "1.2", "1.3"),
            default="1.2",
        ),
    ] = UNSET


class Cors(Part, frozen=True, kw_only=True):
    """Which other origins' pages may call (the Fetch standard's CORS)."""

    origins: Annotated[list[str], about("Pages of these; `*` for all.", formats.ORIGINS, required=True)]
    methods: Annotated[
        list[str] | UnsetType, about("With these methods.", formats.METHODS, default="those of the routes")
    ] = UNSET
    headers: Annotated[
        list[str] | UnsetType,
        about("With these headers.", formats.HEADERS, default="those without consequence"),
    ] = UNSET
    expose: Annotated[
        list[str] | UnsetType,
        about("They may read these headers of answers.", formats.HEADERS, default="none"),
    ] = UNSET
    credentials: Annotated[
        bool | UnsetType, about("With cookies; not with the origin `*`.", kinds.FLAG, default="false")
    ] = UNSET
    max_age: Annotated[
        float | UnsetType, about("How long a browser need not ask again.", kinds.DURATION, default="10m")
    ] = UNSET


class HttpRoute(Part, frozen=True, kw_only=True):
    """Requests that become calls of one service. What a `Route` says of those calls applies to them as to any other."""

    path: Annotated[
        str,
        about(
            "Of this path: `/orders` alone, `/orders/{id}` with whatever stands there as `id`, `/static/*` with all "
            "that is below.",
            formats.PATH,
            required=True,
        ),
    ]
    methods: Annotated[
        list[str] | UnsetType, about("With these methods.", formats.METHODS, default="every method")
    ] = UNSET
    headers: Annotated[
        dict[str, HeaderMatch] | UnsetType, about("With these headers.", default="any", key=kinds.HEADER)
    ] = UNSET
    query: Annotated[
        dict[str, HeaderMatch] | UnsetType,
        about(
            "With these parameters in the query, each under a condition as a header has it.",
            default="any",
            key=kinds.TEXT,
        ),
    ] = UNSET
    service: Annotated[str, about("The service they call.", kinds.NAME, required=True)]
    endpoint: Annotated[
        str | UnsetType, about("Its endpoint.", kinds.NAME, default="the one that the path's last part names")
    ] = UNSET
    timeout: Annotated[
        float | UnsetType, about("How long a request may take.", kinds.DURATION, default="that of the call")
    ] = UNSET


class Ingress(Part, frozen=True, kw_only=True):
    """Where the gateway listens, and which requests it takes. The most specific path wins, then the first."""

    alone: ClassVar[bool] = True

    hosts: Annotated[
        list[str] | UnsetType,
        about(
            "Requests for these hosts, such as `shop.example.com` or `*.example.com`.",
            formats.HOSTS,
            default="every host",
        ),
    ] = UNSET
    port: Annotated[
        int | UnsetType, about("On this port.", formats.PORT, default="8080, and 8443 with `tls`")
    ] = UNSET
    tls: Annotated[Tls | UnsetType, about("By TLS.", default="in the clear")] = UNSET
    https_redirect: Annotated[
        bool | UnsetType,
        about("Sends clients on to `https` instead of taking requests.", kinds.FLAG, default="false"),
    ] = UNSET
    routes: Annotated[
        list[HttpRoute] | UnsetType, about("Which requests become which calls.", default="none")
    ] = UNSET
    cors: Annotated[Cors | UnsetType, about("Which other origins' pages may call.", default="none")] = UNSET
    max_body: Annotated[int | UnsetType, about("A larger body is refused.", formats.SIZE, default="1MiB")] = (
        UNSET
    )


class Egress(Part, frozen=True, kw_only=True):
    """A server outside that is called as a service of the mesh, under every policy."""

    alone: ClassVar[bool] = True

    service: Annotated[str, about("What it is called in the mesh.", kinds.NAME, required=True)]
    hosts: Annotated[
        list[str],
        about(
            "The hosts it may be reached at, `*.example.com` for all below one.", formats.HOSTS, required=True
        ),
    ]
    port: Annotated[
        int | UnsetType, about("At this port.", formats.PORT, default="443, and 80 with the scheme http")
    ] = UNSET
    scheme: Annotated[
        Literal["http", "https"] | UnsetType,
        about("How.", formats.word("http or https", "http", "https"), default="https"),
    ] = UNSET
    methods: Annotated[
        list[str] | UnsetType, about("With these methods alone.", formats.METHODS, default="every method")
    ] = UNSET
    paths: Annotated[
        list[str] | UnsetType,
        about("To these paths alone.", formats.PATHS, default="every path"),
    ] = UNSET


class GatewaySpec(Part, frozen=True, kw_only=True):
    """What a gateway lets in and out. Say one or both."""

    gateways: Annotated[
        list[str] | UnsetType,
        about("The gateways that do this, by name.", kinds.PATTERNS, default="every gateway"),
    ] = UNSET
    ingress: Annotated[
        list[Ingress] | UnsetType,
        about("What it lets in; one alone may be written without a list.", default="nothing"),
    ] = UNSET
    egress: Annotated[
        list[Egress] | UnsetType,
        about("What it lets out; one alone may be written without a list.", default="nothing"),
    ] = UNSET


class Gateway(Part, frozen=True, kw_only=True, tag_field="kind", tag="Gateway"):
    """HTTP into the mesh and out of it. Of several all count together; those that contradict each other are refused."""

    api_version: Annotated[Literal["mesh/v1"], about("Always `mesh/v1`.", required=True)]
    metadata: Annotated[Metadata, about("What it is called.", required=True)]
    spec: Annotated[GatewaySpec, about("What it says.", required=True)]
