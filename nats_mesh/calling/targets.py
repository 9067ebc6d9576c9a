"""From what a user names as the target of a call to all that its calls share."""

from __future__ import annotations

from typing import Any, Final

from nats_mesh.calling.exchange import Target
from nats_mesh.calling.watching import Watching
from nats_mesh.endpoint import Contract, contract_of
from nats_mesh.errors import ConfigError
from nats_mesh.model import NO_HEADERS, Request, check_name
from nats_mesh.telemetry.series import OTHER, PLAIN
from nats_mesh.telemetry.stats import Stats
from nats_mesh.wire.mux import ReplyMux
from nats_mesh.wire.subjects import ALL, Subjects, check_plain_subject

__all__ = ["TargetMaker", "no_target"]

_PLAIN: Final = "nats://"


class TargetMaker:
    """Makes the targets of one caller; who keeps them, and composes their layers, is the client."""

    __slots__ = ("_caller", "_mux", "_stats", "_subjects", "_watching")

    def __init__(
        self, caller: str, subjects: Subjects, mux: ReplyMux, stats: Stats, watching: Watching
    ) -> None:
        self._caller = caller
        self._subjects = subjects
        self._mux = mux
        self._stats = stats
        self._watching = watching

    def of(self, target: Any) -> Target:
        """The target of a name or of an endpoint's function; :class:`ConfigError` where it is neither."""
        if not isinstance(target, str):
            contract = contract_of(target)
            return self.make(contract.service, contract.endpoint, contract)
        if target.startswith(_PLAIN):
            return self._plain(check_plain_subject(target[len(_PLAIN) :]))
        service, dot, endpoint = target.partition(".")
        if not dot:
            raise no_target(target)
        return self.make(check_name("service", service), check_name("endpoint", endpoint), None)

    def make(self, service: str, endpoint: str, contract: Contract | None, subset: str = "") -> Target:
        """The target of an endpoint, or of those instances that are in its ``subset``."""
        return self._usual(
            Target(
                service,
                endpoint,
                self._subjects.rpc(service, endpoint, self._caller, subset or ALL),
                self._subjects.cancel(service, self._caller),
                self._stats.series("out", service, endpoint, self._caller, subset),
                contract,
                self._mux.inbox(service),
                subset=subset,
            )
        )

    def _plain(self, subject: str) -> Target:
        series = self._stats.series("out", PLAIN, OTHER, self._caller)
        return self._usual(Target("", subject, subject, "", series, None, self._mux.inbox(subject)))

    def _usual(self, target: Target) -> Target:
        """Give a target the request that all of its calls begin as."""
        contract = target.contract
        target.watching = self._watching
        target.usual = Request(
            target.service,
            target.endpoint,
            self._caller,
            self._subjects.namespace,
            None,
            NO_HEADERS,
            0.0,
            Any if contract is None else contract.returns,
            target.codec,
            () if contract is None else contract.raises,
            None,
            subject=target.subject,
            plain=True,
            route=target.subset or ALL,
        )
        return target


def no_target(target: Any) -> ConfigError:
    """What is said of something that no call can go to."""
    return ConfigError(f"target {target!r:.80}: say 'service.endpoint' or 'nats://subject'")
