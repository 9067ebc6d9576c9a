"""What Istio does to requests on their way (timeouts, retries, faults, mirrors), as what a rule does to calls."""

from __future__ import annotations

from typing import Any, Final

from nats_mesh.errors import Status
from nats_mesh.policy.istio.found import made
from nats_mesh.policy.istio.items import Item
from nats_mesh.policy.istio.world import duration, share
from nats_mesh.policy.problems import hint
from nats_mesh.policy.reader import Node

__all__ = ["fault_of", "retry_of", "status_of_http", "timeout_of"]

_MAX_ATTEMPTS: Final = 10
_RETRY_ON: Final[dict[str, tuple[str, ...]]] = {
    "5xx": ("refused", "unavailable", "attempt-timeout", "internal"),
    "gateway-error": ("refused", "unavailable", "attempt-timeout"),
    "reset": ("refused", "unavailable", "attempt-timeout"),
    "reset-before-request": ("refused",),
    "connect-failure": ("refused",),
    "refused-stream": ("refused",),
    "http3-post-connect-failure": ("refused",),
    "envoy-ratelimited": ("refused",),
    "unavailable": ("refused", "unavailable"),
    "deadline-exceeded": ("attempt-timeout",),
    "resource-exhausted": ("resource-exhausted",),
    "internal": ("internal",),
    # What follows is answered by the service for good reason; trying again is not for the mesh to decide.
    "cancelled": (), "retriable-4xx": (), "retriable-headers": (), "retriable-status-codes": (),
}  # fmt: skip
_RETRY_CODES: Final[dict[int, tuple[str, ...]]] = {
    429: ("resource-exhausted",), 500: ("internal",), 502: ("unavailable",), 503: ("unavailable",),
    504: ("attempt-timeout",),
}  # fmt: skip
_ORDER: Final = ("refused", "unavailable", "attempt-timeout", "resource-exhausted", "internal")


def timeout_of(http: Item) -> Node | None:
    """How long calls may take."""
    said = http.seconds("timeout")
    if said == 0.0:
        http.lost("timeout", "a call always has a limit: without one here, the endpoint's own, else 5s")
        return None
    return duration(http, "timeout")


def retry_of(http: Item) -> Node | None:
    """When calls are tried again. Istio counts the retries, the mesh the attempts in all."""
    said = http.one("retries")
    if said is None:
        return None
    found: dict[str, Any] = {}
    retries = said.whole("attempts")
    if retries is not None:
        attempts = retries + 1
        if attempts > _MAX_ATTEMPTS:
            said.lost("attempts", f"there are at most {_MAX_ATTEMPTS} attempts in all")
            attempts = _MAX_ATTEMPTS
        found["attempts"] = made(attempts, said.line("attempts"))
    if said.seconds("perTryTimeout") == 0.0:
        said.note("perTryTimeout", "an attempt gets half of the time left, where another may follow")
    elif (each := duration(said, "perTryTimeout")) is not None:
        found["perTryTimeout"] = each
    if said.has("retryOn") and (words := _conditions(said)):
        found["retryOn"] = made(words, said.line("retryOn"))
        if words != ["refused"]:
            said.note("retryOn", "beyond `refused`, only calls of idempotent endpoints are tried again")
    wait = duration(said, "backoff")
    if wait is not None:
        if said.seconds("backoff") == 0.0:
            said.note("backoff", "retries are not made at once: the first after 25ms")
        else:
            found["backoff"] = _backoff(said, wait)
    if said.flag("retryIgnorePreviousHosts") is not None:
        said.note(
            "retryIgnorePreviousHosts", "another attempt goes to another instance where one can be chosen"
        )
    return made(found, said.line()) if found else None


def _backoff(said: Item, initial: Node) -> dict[str, Any]:
    """Istio's longest wait is ten times the first."""
    seconds = said.seconds("backoff") or 0.0
    longest = made(
        initial.value if seconds * 10 > 86_400 else f"{seconds * 10:.6f}".rstrip("0").rstrip(".") + "s",
        initial.line,
    )
    return {"initial": initial, "max": longest}


def _conditions(said: Item) -> list[str]:
    found: set[str] = set()
    for raw in said.text("retryOn").split(","):
        word = raw.strip()
        if word.isascii() and word.isdigit() and len(word) == 3:
            meant = _RETRY_CODES.get(int(word))
        elif word in _RETRY_ON:
            meant = _RETRY_ON[word]
        elif word:
            said.source.wrong(
                said.at("retryOn"),
                said.line("retryOn"),
                f"{word[:60]!a} is no condition; {hint(word, _RETRY_ON)}",
            )
            continue
        else:
            continue
        found.update(meant or ())
        if not meant and word != "retriable-status-codes":
            said.lost("retryOn", f"{word}: such answers are not tried again, they are the service's own")
    if not found and said.text("retryOn").strip():
        found.add("refused")
    return [word for word in _ORDER if word in found]


def status_of_http(code: int) -> str:
    """The status that an HTTP status means; empty for one that is no failure."""
    return str(Status.from_code(code)) if code >= 400 else ""


def fault_of(http: Item) -> Node | None:
    """What is done to calls on purpose."""
    said = http.one("fault")
    if said is None:
        return None
    found: dict[str, Any] = {}
    if (delay := said.one("delay")) is not None:
        part = _share_of(delay)
        if delay.seconds("fixedDelay"):
            found["delay"] = made({"duration": duration(delay, "fixedDelay"), **part}, delay.line())
        elif delay.has("fixedDelay"):
            delay.note("fixedDelay", "is no delay")
    if (abort := said.one("abort")) is not None:
        part = _share_of(abort)
        status = _status(abort)
        if status is not None:
            found["abort"] = made({"status": status, **part}, abort.line())
    return made(found, said.line()) if found else None


def _share_of(item: Item) -> dict[str, Node]:
    """Of how many calls. Without a word of it Istio means none."""
    percentage = item.one("percentage")
    old = item.whole("percent")
    if percentage is not None:
        found = share(percentage, "value", percentage.number("value") or 0.0)
    else:
        found = share(item, "percent", float(old or 0))
        if old is None:
            item.note("", "says no percentage, which for Istio means: of no request")
    if found is None or found.value == "100%":
        return {}
    return {"share": found}


def _status(abort: Item) -> Node | None:
    code, name = abort.whole("httpStatus"), abort.text("grpcStatus")
    if code is not None:
        status = status_of_http(code)
        if not status:
            abort.lost("httpStatus", "only a failure can be made up: nothing is", "serious")
            return None
        if status == "UNKNOWN":
            abort.note("httpStatus", f"{code} is no status of the mesh: calls fail with UNKNOWN")
        return made(status, abort.line("httpStatus"))
    if name == "OK":
        abort.lost("grpcStatus", "only a failure can be made up: nothing is", "serious")
    elif name and name not in Status.__members__:
        said = f"must be the name of a status, got {name[:60]!a}; {hint(name, Status.__members__)}"
        abort.source.wrong(abort.at("grpcStatus"), abort.line("grpcStatus"), said)
    elif name:
        return made(name, abort.line("grpcStatus"))
    return None
