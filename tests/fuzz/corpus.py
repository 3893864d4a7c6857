"""Recorded frames to spoil: everything that each kind of receiver got during the life of a cluster.

Every kind of frame occurs. The rare ones come from the table of representative frames, with the ids of the
recorded cluster.
"""

from collections import defaultdict
from typing import Final

from tests.core.cluster import Cluster
from tests.fuzz.places import CLIENT, PEER, STRANGER
from tests.protocol.representative import REPRESENTATIVES

from ckpt_protocol.bounds_by_kind import REQUEST_KINDS
from ckpt_protocol.constants import SA_CKPT_SECTIONS_ANY, SA_CKPT_WR_ACTIVE_REPLICA_WEAK
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, Op
from ckptd.core.events import ClientReceived, Event, HeartbeatReceived, PeerReceived

Corpus = dict[str, dict[int, list[Frame]]]
"""By sender, then by kind."""

FRAMES_PER_KIND_MAX: Final = 200
KINDS: Final = tuple(value for name, value in vars(Kind).items() if name.isupper())


class _Recorded(Cluster):
    """A cluster that keeps a copy of every frame that a node handled."""

    def __init__(self, node_ids: str, witnesses: str = "") -> None:
        self.corpus: Corpus = defaultdict(lambda: defaultdict(list))
        super().__init__(node_ids, witnesses=witnesses, chunk_bytes=200)

    def handled(self, node_id: str, event: Event) -> None:
        match event:
            case PeerReceived(_, frames):
                self._keep(PEER, frames)
            case ClientReceived(_, frames):
                self._keep(CLIENT, frames)
            case HeartbeatReceived(frame):
                self._keep(STRANGER, [frame])
        super().handled(node_id, event)

    def _keep(self, sender: str, frames: list[Frame]) -> None:
        for frame in frames:
            kept = self.corpus[sender][frame.kind]
            if len(kept) < FRAMES_PER_KIND_MAX:
                kept.append(frame)


def record() -> Corpus:
    """Return the corpus of one eventful life."""
    cluster = _Recorded("ab", witnesses="w")
    cluster.start(*cluster.hosts)
    cluster.settle()
    _use(cluster)
    cluster.kill("a")
    cluster.until(lambda: cluster.serving("b"))
    _use(cluster, "b")
    cluster.restart("a")
    cluster.settle()
    cluster.leave("b")
    cluster.run(300)
    for representative in REPRESENTATIVES:
        frame = Frame(
            getattr(Kind, representative.kind),
            representative.a,
            representative.b,
            representative.c,
            representative.body,
        )
        sender = CLIENT if frame.kind in REQUEST_KINDS else STRANGER if frame.kind == Kind.HEARTBEAT else PEER
        cluster.corpus[sender][frame.kind].append(frame)
    return cluster.corpus


def _use(cluster: Cluster, at: str = "a") -> None:
    """Make every call that a client has."""
    client = cluster.client(at)
    other = cluster.client("b")
    for name, flags in ((b"x", 1), (b"y", SA_CKPT_WR_ACTIVE_REPLICA_WEAK)):
        table = client.open(name, flags)
        table.update([Op.CREATE, b"", 2**62, b"new"], [Op.PUT, b"k", bytes(500), None])
        table.update([Op.PATCH, b"k", 3, b"patch", None], [Op.WRITE, b"k", 0, b"written"])
        table.update([Op.EXPIRATION_SET, b"k", 2**62], [Op.OVERWRITE, b"k", b"value"])
        table.update([Op.PUT, b"s", b"v", None], [Op.EXPIRE_AFTER, b"s", 2**62])
        table.try_read(b"k", b"absent")
        table.call(Kind.READ, [b"s", 0, None, True, True])
        place = table.call(Kind.TRACK, None, 0).payload
        table.begin(Kind.TRACK, place[0], place[2], True, b"s", True)
        table.call(Kind.ITERATE, SA_CKPT_SECTIONS_ANY, 0, None, True)
        table.call(Kind.ITERATE, 3, 2**61, b"k", False, 5, True, True)
        table.synchronize()
        table.status()
        table.call(Kind.RETENTION_SET, 10**9)
        table.set_active()
        table.update([Op.LEAD, table.handle, 9, 5 * 10**9, False, False, "app", "host", 7])
        cluster.run(50)
        version, leader, _, lineage, *_ = table.call(Kind.LEADER, table.handle, 0, 0, True).payload
        table.begin(Kind.LEADER_TRACK, table.handle, version)
        table.update([Op.PUT, b"k", b"led", None], [Op.TOKEN, *leader[:2], 9, lineage])
        table.try_update([Op.REVOKE, 1, 1])
        table.try_update([Op.RESIZE, 200, None, 128, False])
        table.update([Op.RESIGN, table.handle, None])
        passed_on = other.open_existing(name)
        passed_on.write(b"m", b"of the other")
        passed_on.update([Op.DELETE, b"m"])
        passed_on.close()
    client.call(Kind.DESCRIBE, 0, ["cluster"])
    client.call(Kind.DESCRIBE, 0, ["checkpoints"])
    client.call(Kind.PING)
    client.call(Kind.OPERATE, 0, ["accept-loss", "nobody"])
    client.unlink(b"y")
    client.call(Kind.DETACH)


def nothing_missing(corpus: Corpus) -> list[int]:
    """Return the kinds of which the corpus has no frame."""
    found = {kind for by_kind in corpus.values() for kind in by_kind}
    return [kind for kind in KINDS if kind not in found]
