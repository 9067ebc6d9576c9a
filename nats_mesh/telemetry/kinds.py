"""The kinds of events that the mesh itself tells of, in one place for who tells and who listens."""

from __future__ import annotations

import enum

__all__ = ["EventKind"]


class EventKind(enum.StrEnum):
    """What happened. Applications may tell of kinds of their own."""

    #: Noticed by callers: of an endpoint, of an instance, of what a service may be asked again.
    BREAKER_CLOSED = "breaker.closed"
    BREAKER_HALF_OPEN = "breaker.half-open"
    BREAKER_OPEN = "breaker.open"
    EJECTION_BEGAN = "ejection.began"
    EJECTION_CAPPED = "ejection.capped"
    EJECTION_ENDED = "ejection.ended"
    EJECTION_PANIC = "ejection.panic"
    RETRY_DENIED = "retry.denied"
    #: What whoever carries out a rollout does, and why.
    ROLLOUT_ENDED = "rollout.ended"
    ROLLOUT_FAILING = "rollout.failing"
    ROLLOUT_PAUSED = "rollout.paused"
    ROLLOUT_RETURNING = "rollout.returning"
    ROLLOUT_RESUMED = "rollout.resumed"
    ROLLOUT_STARTED = "rollout.started"
    ROLLOUT_STEP = "rollout.step"
    ROLLOUT_TAKEN = "rollout.taken"
    ROLLOUT_WAITING = "rollout.waiting"
    #: What became of policies that are followed.
    POLICY_APPLIED = "policy.applied"
    POLICY_REJECTED = "policy.rejected"
    CONFIG_APPLIED = "config.applied"
    CONFIG_REJECTED = "config.rejected"
    #: A promise burns its budget too fast, and does so no more; told by one of those who watch.
    ALERT_FIRING = "alert.firing"
    ALERT_RESOLVED = "alert.resolved"
    #: Of a member: its connection to the bus.
    BUS_BACK = "bus.back"
    BUS_LOST = "bus.lost"
    #: Of an instance: what operators do to it, and what it does by itself.
    FAULT_CLEARED = "fault.cleared"
    FAULT_ENDED = "fault.ended"
    FAULT_SET = "fault.set"
    INSTANCE_DRAINING = "instance.draining"
    INSTANCE_UNDRAINED = "instance.undrained"
    LIMIT_CHANGED = "limit.changed"
    LOG_LEVEL = "log.level"
    QUEUE_BACK = "queue.back"
    QUEUE_LEFT = "queue.left"
    TAP_PAYLOADS = "tap.payloads"
    VERDICT_ASIDE = "verdict.aside"
    VERDICT_BACK = "verdict.back"
    VERDICT_STAYS = "verdict.stays"
    #: Told by nobody: observers see it by presence, or read it in the audit.
    CONFIG_CHANGED = "config.changed"
    INSTANCE_ALIVE = "instance.alive"
    INSTANCE_GONE = "instance.gone"
    INSTANCE_JOINED = "instance.joined"
    INSTANCE_SUSPECT = "instance.suspect"
    POLICY_CHANGED = "policy.changed"
