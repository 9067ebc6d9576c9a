"""Who is connected and answers nothing, in words and in lists. Pure; :mod:`~nats_mesh_cli.silence` finds them out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from nats_mesh.discovery.services_api import InfoReply
from nats_mesh.model import is_name
from nats_mesh_cli.errors import FAILED, CliError
from nats_mesh_cli.hints import listed
from nats_mesh_cli.output import counted

__all__ = [
    "SILENT",
    "Silent",
    "Unheard",
    "after_silence",
    "heard_text",
    "not_among",
    "services_meant",
    "silent_error",
    "silent_info",
    "silent_text",
]

#: The state of an instance that is connected and answers nothing.
SILENT: Final = "silent"
#: How many are named in a sentence.
_NAMED: Final = 5


class Silent(NamedTuple):
    """Who is connected and answers nothing: an instance, or (``instance`` is empty) some instance of a service of which
    none answers. ``name`` is its ``host-pid``, ``heard_s`` how long ago its peers heard it, where that is known."""

    service: str
    instance: str = ""
    name: str = ""
    heard_s: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.service, self.instance

    @property
    def place(self) -> str:
        """What people call it."""
        return f"{self.service} ({self.name or self.instance})" if self.instance else self.service

    @property
    def told(self) -> str:
        """What is said of it in a list of those who ought to be there."""
        if not self.instance:
            return f"{self.service}: one is connected, and nobody answers"
        return f"{self.place} is connected and does not answer{heard_text(self)}"

    def called(self, word: str) -> bool:
        """Whether somebody means it by ``word``: the begin of its id or of its ``host-pid``, alone or behind its
        service."""
        service, slash, name = word.rpartition("/")
        if not name or not self.instance or (slash and self.service != service):
            return False
        return self.instance.startswith(name) or self.name.startswith(name)


class Unheard(NamedTuple):
    """Who does not answer: the ``silent`` are connected, and ``ended`` are instances that never said they leave (they
    were killed, or have crashed) and are connected no more."""

    silent: Sequence[Silent] = ()
    ended: Sequence[Silent] = ()


def heard_text(each: Silent) -> str:
    """When its peers heard it, as the end of a sentence; empty where that is not known."""
    return "" if each.heard_s is None else f", and its peers heard it {each.heard_s:.0f} s ago"


def silent_text(found: Sequence[Silent]) -> str:
    """What is to be said of them; empty where there are none."""
    instances = [each for each in found if each.instance]
    services = [each.service for each in found if not each.instance]
    parts = []
    if instances:
        told = [_called(each) for each in instances[:_NAMED]]
        told += [f"{len(instances) - _NAMED} more"] if len(instances) > _NAMED else []
        parts.append(
            f"{counted(len(instances), 'instance is', 'instances are')} connected and silent (hung, or stopped): "
            f"{', '.join(told)}; calls that reach {'it' if len(instances) == 1 else 'them'} wait until their time "
            "is over"
        )
    if services:
        parts.append(
            f"no instance of {listed(services)} answers, but one is connected: it is silent (hung, or stopped), and "
            "calls to it wait until their time is over"
        )
    return "; ".join(parts)


def after_silence(found: Sequence[Silent], word: str = "") -> str:
    """What to do about who is silent. ``word`` is what somebody asked for: it names the call of which ``why`` tells
    more; empty where nothing is to be said of ``why``, as in ``why`` itself."""
    names = [each.name for each in found if each.name]
    one = len(found) == 1
    who = "it" if one else "them"
    hosts = [name.rpartition("-") for name in names]
    if one and names and hosts[0][2].isdecimal():
        how = f"kill -CONT {hosts[0][2]} on {hosts[0][0]}"
    else:
        how = "kill -CONT PID"
    todo = f"let {who} go on ({how}) or restart {who}"
    if not word:
        return todo
    service, point, endpoint = word.partition(".")
    if not point or not endpoint:
        service, endpoint = found[0].service, "ENDPOINT"
    return f"{todo}; 'nats-mesh why {service}.{endpoint}' says what becomes of a call"


def _called(each: Silent) -> str:
    heard = "" if each.heard_s is None else f", heard {each.heard_s:.0f} s ago"
    return f"{each.service} {each.instance[:8]} ({each.name or 'no name'}{heard})"


def not_among(found: Iterable[Silent], known: Collection[tuple[str, str]]) -> list[Silent]:
    """Those of them who are none of the ``known`` instances (service and id); a service as a whole is one of them where
    any of its instances is."""
    services = {service for service, _ in known}
    return [
        each for each in found if (each.key not in known if each.instance else each.service not in services)
    ]


def silent_info(silent: Silent, namespace: str) -> InfoReply:
    """A silent instance as if it had answered: what it would say of itself is not known."""
    metadata = {"mesh.namespace": namespace, "mesh.instance": silent.name, "mesh.state": SILENT}
    return InfoReply(
        name=silent.service, id=silent.instance, version="", description="", metadata=metadata,
        endpoints=(), omitted=0,
    )  # fmt: skip


def silent_error(found: Iterable[Silent], word: str) -> CliError | None:
    """What ends a command that needs an answer of what is called ``word`` (a service, an endpoint, an instance), which
    is silent; ``None`` where it is none of those who were ``found`` so."""
    silent, services = list(found), services_meant(word)
    meant = [each for each in silent if each.called(word)] or [s for s in silent if s.service in services]
    return CliError(silent_text(meant), hint=after_silence(meant, word), code=FAILED) if meant else None


def services_meant(word: str | None) -> list[str]:
    """The service that somebody may mean by ``word`` (it, or an endpoint of it); none where that is no name."""
    service = (word or "").partition(".")[0]
    return [service] if is_name(service) else []
