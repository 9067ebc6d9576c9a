"""Progressive delivery by `Rollout`, with no process of its own: any member with operator rights carries one out while
it holds its lease, and another one takes over where it dies."""

from nats_mesh.rollout.book import Book, Entry
from nats_mesh.rollout.record import Record
from nats_mesh.rollout.runner import Runner
from nats_mesh.rollout.starting import Starting
from nats_mesh.rollout.telling import Told

__all__ = ["Book", "Entry", "Record", "Runner", "Starting", "Told"]
