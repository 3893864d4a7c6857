"""The memory that a node's replicas may take: counted as they grow, and recounted once a second.

The active replica refuses an update (NO_MEMORY) that would take its own node beyond the limit, and any growth
while another node with a replica is full. A full node says so in its heartbeats, and gets no more replicas.
"""

from collections.abc import Collection
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.errors import RequestError
from ckpt_protocol.parse_updates import Ops
from ckptd.core.content.memory_growth import growth_of
from ckptd.core.content.parse_replicas import Chunk
from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.content.sections import SECTION_OVERHEAD_BYTES
from ckptd.core.context import Context
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.reply_cache import ANSWERS_BYTES_FREE
from ckptd.core.settings import SECOND_NS

RECOUNT_NS: Final = SECOND_NS

RESYNC_OVERCOMMIT: Final = 4
"""A replica that is being made may exceed the limit by one part in so many: updates stop before it does."""


class Capacity:
    """Keeps `context.resident_bytes` up to date, except for what updates add to it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.recount_due_ns = 0

    def find_full_nodes(self, replicas: Collection[ReplicaContent], liveness: Liveness) -> bool:
        """Find the nodes whose replicas use all their memory; return True if some have room again.

        `replicas` are all of this node's. Full nodes get no new replicas, and no updates that make theirs
        grow.
        """
        liveness.own.full = self.is_full(replicas)
        full = [peer.node_id for peer in liveness.peers.values() if peer.full]
        if liveness.own.full:
            full.append(self.context.node_id)
        have_capacity = bool(set(self.context.full_nodes) - set(full))
        self.context.full_nodes = tuple(full)
        return have_capacity

    def is_full(self, replicas: Collection[ReplicaContent]) -> bool:
        """Return True if these, all of this node's replicas, have reached the memory limit."""
        context, limit = self.context, self.context.settings.memory_bytes_max
        if context.now_ns >= self.recount_due_ns:
            self.recount_due_ns = context.now_ns + RECOUNT_NS
            context.resident_bytes = _count(replicas)
            if limit and context.resident_bytes >= limit:
                for replica in replicas:
                    replica.log.compact(0)  # The updates kept for replicas that come back go first.
                context.resident_bytes = _count(replicas)
        full = bool(limit) and context.resident_bytes >= limit
        if full:
            text = (
                f"the replicas of this node take {context.resident_bytes} of {limit} bytes (memory_bytes_max)"
            )
            context.raise_alarm("memory", text)
        else:
            context.clear_alarm("memory")
        return full

    def can_admit_resync(self, chunk: Chunk, body_bytes: int) -> bool:
        """Count what a chunk brings, and return True if the replica that is being made may take it.

        Small sections take more than their bytes: a limit of 400 KB once admitted a replica of 600 KB.
        """
        brought = sum(section is not None for _, section in chunk.sections)
        self.context.resident_bytes += body_bytes + SECTION_OVERHEAD_BYTES * brought
        limit = self.context.settings.memory_bytes_max
        return not limit or self.context.resident_bytes <= limit + limit // RESYNC_OVERCOMMIT


def check_capacity(replica: ReplicaContent, session: int, downstream: Collection[str], ops: Ops) -> None:
    """Refuse an update, before it is applied, if a node with a replica has no memory for it.

    The answers that are kept for a session count as growth once they exceed `ANSWERS_BYTES_FREE`, as they do
    if the session never trims them. Raises: RequestError.
    """
    added_bytes = growth_of(ops, replica.sections)
    answers = replica.log.answers.get(session)
    if answers is not None and answers.bytes >= ANSWERS_BYTES_FREE:
        added_bytes += ANSWERS_BYTES_FREE
    if added_bytes <= 0:
        return
    context, limit = replica.context, replica.context.settings.memory_bytes_max
    full = [node_id for node_id in context.full_nodes if node_id in downstream]
    if limit and context.resident_bytes + added_bytes > limit:
        full.append(context.node_id)
    if full:
        text = f"the replicas of node {full[0]} take all the memory that they may (memory_bytes_max)"
        raise RequestError(codes.NO_MEMORY, text)


def _count(replicas: Collection[ReplicaContent]) -> int:
    return sum(replica.resident_bytes for replica in replicas)
