"""What happens to a call in each layer of an instance, in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nats_mesh.explaining.calls import Question, Way
from nats_mesh.policy.rules import DEFAULT
from nats_mesh_cli.catalog import fault_text
from nats_mesh_cli.output import Record
from nats_mesh_cli.why_words import faults_at, short, unknown

__all__ = ["Inbound"]


class Inbound:
    """The words for calls of one way. ``record`` is the endpoint's, ``taking`` are the instances that take such calls,
    ``others`` those of the service that do not."""

    def __init__(
        self,
        question: Question,
        way: Way,
        record: Record,
        taking: Sequence[Record],
        others: Sequence[Record],
    ) -> None:
        self._question = question
        self._way = way
        self._record = record
        self._instances = taking
        self._others = others
        self.words: Mapping[str, Callable[[Record], str]] = {
            "identity": lambda _: (
                "it must name its publisher's own inbox; nothing checks whether this caller may call: access "
                "policies have no layer in this version"
            ),
            "draining": self._draining,
            "deadline": self._arrival,
            "fault": self._injected,
            "concurrency": self._slots,
            "decode": lambda _: "INVALID_ARGUMENT where the value does not fit the endpoint",
            "duplicates": self._duplicates,
            "interceptors": lambda _: "those in the service's code, which nobody knows here",
            "handler": lambda _: f"{self._way.target.label} runs",
            "encode": lambda _: "its value is encoded; an error of the handler's where that cannot be",
        }

    def _draining(self, layer: Record) -> str:
        if self._way.instances is None:
            return unknown(layer)
        layer["note"] = ""
        away = [each for each in self._others if each["state"] != "ready"]
        if not away:
            return ""
        return "takes no calls: " + ", ".join([f"{short(each)} ({each['state']})" for each in away])

    def _arrival(self, layer: Record) -> str:
        layer["note"], layer["parameters"] = "", {}  # it brings its own time
        return "refused unseen where its time is over when it arrives"

    def _injected(self, layer: Record) -> str:
        if self._way.instances is None:
            return unknown(layer)
        found = [(each, fault) for each in self._instances for fault in faults_at(self._record, each)]
        layer["note"] = ""
        if not found:
            return ""
        return "operators injected " + "; ".join(
            [f"at {short(each)}, {fault_text(fault)}" for each, fault in found]
        )

    def _slots(self, layer: Record) -> str:
        limit = layer["parameters"]["limit"]
        if limit["source"] == DEFAULT and limit["running"] is None:
            number = (
                f"as many of the endpoint's calls as it declares ({limit['value']} where it declares none)"
            )
        else:
            number = f"{limit['value']} of the endpoint's calls"
        busy = [
            f"{short(each)} {each['in_flight']}" for each in self._instances if each["in_flight"] is not None
        ]
        now = f"; under way now, of all endpoints: {', '.join(busy)}" if busy else ""
        return f"refused at once where {number} run in its instance{now}"

    def _duplicates(self, layer: Record) -> str:
        if not self._question.keyed:
            return "it has no idempotency key, so nothing tells whether it was made before"
        way = self._way
        if not way.instances:
            return "it has a key; whether the endpoint looks at it is not known, as nobody serves it"
        said = {
            each.metadata.get("mesh.duplicates", "off")
            for info in way.instances
            for each in info.endpoints
            if each.name == way.target.endpoint
        }
        if way.target.keyed:
            return "its key is looked up: whoever sends it again gets the first reply, from any instance"
        if said == {"off"}:
            return "its key is ignored: the endpoint does not look at keys"
        if said == {"local"}:
            return "its key is looked up by the instance that gets it, and the others do not know it"
        return "it has a key, which not all of the instances look at in the same way"
