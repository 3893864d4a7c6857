"""A replica, one node's copy of a checkpoint: its content, its active role, and the joins that it serves."""

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.context import Context
from ckptd.core.directory.attributes import Attributes
from ckptd.core.replication.active_replica import ActiveReplica
from ckptd.core.replication.resync import ResyncSender
from ckptd.core.reply_cache import ANSWER_MEMORY_FACTOR


class Replica(ReplicaContent):
    """One node's replica of one checkpoint."""

    __slots__ = ("active", "resync_senders")

    def __init__(
        self, context: Context, creation_id: int, name: bytes, attributes: Attributes, created_ns: int
    ) -> None:
        super().__init__(context, creation_id, name, attributes, created_ns)
        self.active: ActiveReplica | None = None
        self.resync_senders: dict[str, ResyncSender] = {}
        """By node: the joins that this replica is the source of."""

    @property
    def is_active(self) -> bool:
        return self.active is not None

    @property
    def source(self) -> str:
        """The node whose updates and chunks this replica takes, or ""."""
        return self.active.catching_up_from if self.active is not None else self.resync_source

    @property
    def resident_bytes(self) -> int:
        refusals = self.active.error_replies.bytes if self.active is not None else 0
        log = self.log
        return (
            self.sections.resident_bytes
            + log.entry_bytes
            + ANSWER_MEMORY_FACTOR * log.answer_bytes
            + refusals
        )

    def report(self, node_id: str, activation_seq: int) -> None:
        """Report what this replica holds to the node of the active one, for that activation."""
        body = pack_body([activation_seq, self.advertised_seq])
        frame = encode_frame(Kind.ACK, self.creation_id, self.context.epoch, self.log.seq, body)
        self.context.send_peer(node_id, frame)

    def flush_batch(self) -> None:
        if self.active is not None:
            self.active.flush_batch()

    def stream_to(self, node_id: str) -> None:
        if self.active is not None:
            self.active.stream_to(node_id)

    def end_join(self, node_id: str) -> None:
        del self.resync_senders[node_id]
        if self.active is not None:
            self.active.admit(node_id)

    def on_committed(self, committed_seq: int) -> None:
        if self.resync_senders:
            for sender in list(self.resync_senders.values()):
                sender.on_commit(committed_seq)
