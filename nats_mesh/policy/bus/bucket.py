"""The bucket of policies, or of configurations: how it is made, and what one that is there already has to have."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec

from nats_mesh.policy.bus.documents import MAX_VALUE
from nats_mesh.wire.jetstream import NAME_TAKEN, NO_CLUSTER, NO_PEERS, NOT_FOUND
from nats_mesh.wire.kv import KvAbsentError, KvError, trouble
from nats_mesh.wire.kv_log import KvLog
from nats_mesh.wire.streams import ask_stream, create_stream

__all__ = ["HISTORY", "Bucket", "make_bucket"]

log = logging.getLogger("nats_mesh.policies")

#: How many revisions of a key are kept, and how much in all (bytes). The server sets that much aside at once, so where
#: it has not so much left, it is less.
HISTORY: Final = 64
TOTAL_BYTES: Final = (256 << 20, 64 << 20, 16 << 20)
#: What comes with a value: the headers that say who, when and why.
_HEADER_ROOM: Final = 4 << 10
_REPLICAS: Final = 3


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket as it is. ``made``: it was not there before; ``atomic``: several keys can be stored as one."""

    name: str
    made: bool
    atomic: bool
    replicas: int
    max_bytes: int


async def make_bucket(
    log_: KvLog,
    *,
    hints: str,
    servers: int,
    make: bool,
    replicas: int | None,
    timeout_s: float,
    description: str = "policies of a mesh namespace",
) -> Bucket:
    """Make the bucket of ``log_``, whose messages are told of on ``hints``; one that is there gets what it lacks.

    ``servers`` are as many as the cluster is known to have: of three and more, three keep a copy, and where
    three cannot be found an error says so: fewer copies than were meant must not happen in silence.
    """
    wanted = replicas or (_REPLICAS if servers >= _REPLICAS else 1)
    found = await ask_stream(log_, "INFO", None, timeout_s)
    if found.config is not None:
        return await _bring_up(log_, found.config, hints, make=make, timeout_s=timeout_s)
    if found.error is not None and found.error.err_code != NOT_FOUND:
        raise trouble(found.error.err_code, f"{log_.name}: {found.error.description}")
    if not make:
        raise KvAbsentError(f"there is no bucket {log_.name!r} yet")
    # The number of servers that a connection hears of may be short of those that there are: more is tried first.
    config = _config(log_, hints, wanted if replicas else _REPLICAS) | {"description": description}
    made = await create_stream(log_, config, TOTAL_BYTES, timeout_s)
    if made.error is not None and not replicas and made.error.err_code in (NO_CLUSTER, NO_PEERS):
        if wanted > 1:
            text = f"the bucket cannot have {wanted} copies now ({made.error.description})"
            raise KvError(f"{log_.name}: {text}: are all servers up, with JetStream? Nothing was made")
        config["num_replicas"] = 1
        made = await create_stream(log_, config, TOTAL_BYTES, timeout_s)
    if made.error is not None and made.error.err_code == NAME_TAKEN:  # somebody else made it meanwhile
        return await make_bucket(
            log_, hints=hints, servers=servers, make=False, replicas=replicas, timeout_s=timeout_s
        )
    if made.error is not None or made.config is None:
        code, text = (0, "an answer without a word") if made.error is None else (
            made.error.err_code, made.error.description,
        )  # fmt: skip
        raise trouble(code, f"{log_.name}: {text}")
    return _bucket(log_, made.config, made=True)


async def _bring_up(
    log_: KvLog, config: dict[str, Any], hints: str, *, make: bool, timeout_s: float
) -> Bucket:
    """A bucket that is there: what it lacks is added, what it has otherwise stays."""
    wanted = _config(log_, hints, 1)
    lacks = {
        name: wanted[name]
        for name in ("allow_direct", "allow_atomic", "republish")
        if not _same(name, config.get(name), wanted[name])
    }
    if config.get("max_msgs_per_subject") != HISTORY:
        lacks["max_msgs_per_subject"] = HISTORY
    if lacks and make:
        said = await ask_stream(log_, "UPDATE", {**config, **lacks}, timeout_s)
        if said.error is not None:
            text = f"{log_.name} lacks {', '.join(lacks)}, and cannot get it: {said.error.description}"
            raise trouble(said.error.err_code, text)
        config = said.config or config
        log.info("the bucket %s got %s", log_.name, ", ".join(lacks))
    elif lacks:
        log.warning("the bucket %s lacks %s", log_.name, ", ".join(lacks))
    return _bucket(log_, config, made=False)


def _same(name: str, has: object, wanted: object) -> bool:
    if name == "republish" and isinstance(has, dict) and isinstance(wanted, dict):
        return has.get("dest") == wanted["dest"] and has.get("src") in ("", ">", wanted["src"])
    return has == wanted


def _config(log_: KvLog, hints: str, replicas: int) -> dict[str, Any]:
    return {
        "name": log_.stream,
        "subjects": [f"{log_.prefix}>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_msgs_per_subject": HISTORY,
        "max_bytes": TOTAL_BYTES[0],
        "max_msg_size": MAX_VALUE + _HEADER_ROOM,
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_atomic": True,
        "republish": {"src": f"{log_.prefix}>", "dest": hints},
    }


def _bucket(log_: KvLog, config: dict[str, Any], *, made: bool) -> Bucket:
    return Bucket(
        name=log_.name,
        made=made,
        atomic=config.get("allow_atomic") is True,
        replicas=int(config.get("num_replicas") or 1),
        max_bytes=int(config.get("max_bytes") or -1),
    )
