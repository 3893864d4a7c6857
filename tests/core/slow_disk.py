"""A disk as the daemon uses it: one write is in progress, and of those that wait the newest is next."""

from tests.core.cluster import Cluster

from ckptd.core.events import Persisted, PersistFailed


class SlowDisk:
    """Replaces one node's disk; the test decides when, and how, each write ends."""

    def __init__(self, cluster: Cluster, node_id: str) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.writing: tuple[bytes, int] | None = None
        self.waiting: tuple[bytes, int] | None = None
        self._persist_elsewhere = cluster._persist
        cluster._persist = self._persist  # type: ignore[method-assign]

    def _persist(self, node_id: str, record: bytes, number: int) -> None:
        if node_id != self.node_id:
            self._persist_elsewhere(node_id, record, number)
        elif self.writing is None:
            self.writing = record, number
        else:
            self.waiting = record, number

    def end(self, *, done: bool = True, told: bool = True) -> None:
        """End the write in progress: it succeeds or fails, and the node learns that or does not."""
        assert self.writing is not None
        record, number = self.writing
        self.writing, self.waiting = self.waiting, None
        if done:
            self.cluster.hosts[self.node_id].record = record
        if told:
            event = Persisted(number) if done else PersistFailed(number, "no space left")
            self.cluster.deliver(self.node_id, event)

    def release(self) -> None:
        """Make all writes fast again."""
        self.cluster._persist = self._persist_elsewhere  # type: ignore[method-assign]
        while self.writing:
            self.end()
