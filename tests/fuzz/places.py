"""Where a frame arrives: a node in each state that matters, with all senders that may reach it.

A `Place` is a small cluster in virtual time. It is replaced after a few frames, since a node believes a
well-formed frame of an authentic peer, even if it is nonsense. What a connection brings passes the frame
decoder, as in the daemon.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.core.client import Client, Opened
from tests.core.cluster import Cluster, nodes

from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
)
from ckpt_protocol.messages import Kind, Op

CLIENT: Final = "client"
NEW_CLIENT: Final = "client without a session"
PEER: Final = "peer"
STRANGER: Final = "stranger"


@dataclass
class Place:
    """`target` is the node that gets the frames; `opened` are the attacking client's handles there.

    `serves`: the node answers its clients in this state, so the test can check another client.
    """

    cluster: Cluster
    target: str
    peers: tuple[str, ...]
    opened: list[Opened] = field(default_factory=list)
    serves: bool = True

    @property
    def senders(self) -> tuple[str, ...]:
        """Return the senders that can reach the target in this state."""
        senders: tuple[str, ...] = (STRANGER,) if self.peers else ()
        if self.peers:
            senders += (PEER,)
        return (*senders, CLIENT, NEW_CLIENT) if self.opened else senders


def _busy(cluster: Cluster, at: str) -> list[Opened]:
    """Open checkpoints of three kinds with some content at one node."""
    client = cluster.client(at)
    kinds = (
        ("x", 1),
        ("y", SA_CKPT_WR_ACTIVE_REPLICA_WEAK),
        ("z", SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED),
    )
    opened = [client.open(name.encode(), flags) for name, flags in kinds]
    opened[2].set_active()
    for table in opened:
        table.write(b"k", b"value")
        table.write(b"l", bytes(100))
    cluster.run(60)
    return opened


def _alone() -> Place:
    cluster = nodes("a")
    return Place(cluster, "a", (), _busy(cluster, "a"))


def _active() -> Place:
    cluster = nodes("abc")
    return Place(cluster, "a", ("b", "c"), _busy(cluster, "a"))


def _backup() -> Place:
    cluster = nodes("abc")
    _busy(cluster, "a")
    client = cluster.client("b")
    return Place(cluster, "b", ("a", "c"), [client.open_existing(name) for name in (b"x", b"y", b"z")])


def _pending() -> Place:
    """Have updates wait for an acknowledgement, a reader for the commit, and a tracker for a change."""
    cluster = nodes("abc")
    opened = _busy(cluster, "a")
    cluster.hold("b", "a")
    opened[0].begin_write(b"k", b"pending")
    opened[0].begin_read(b"k")
    opened[0].begin(Kind.TRACK, None, 0)
    opened[0].begin(Kind.UPDATE, [Op.LEAD, opened[0].handle, 9, 5 * 10**9, True, False, "app", "host", 7])
    opened[0].begin(Kind.LEADER_TRACK, opened[0].handle, 0)
    cluster.run(1)
    return Place(cluster, "a", ("b", "c"), opened, serves=False)


def _joining() -> Place:
    """Have the target in the view while its replicas are not complete yet."""
    cluster = nodes("abc")
    _busy(cluster, "a")
    cluster.kill("c")
    cluster.until(lambda: cluster.serving("a"))
    cluster.restart("c")
    cluster.until(lambda: cluster.node("c").view is not None and "c" in cluster.node("a").view.members)  # type: ignore[union-attr]
    cluster.hold("a", "c")
    return Place(cluster, "c", ("a", "b"), serves=False)


def _source() -> Place:
    """Have the target send its checkpoints to a node that joins and acknowledges nothing."""
    cluster = nodes("abc", chunk_bytes=40, chunks_in_flight=1)
    opened = _busy(cluster, "a")
    cluster.kill("c")
    cluster.until(lambda: cluster.serving("a"))
    opened[0].write(b"m", bytes(1000))
    cluster.restart("c")
    cluster.until(lambda: "c" in cluster.node("a").view.members)  # type: ignore[union-attr]
    cluster.hold("c", "a")
    cluster.run(1)
    return Place(cluster, "a", ("b", "c"), opened, serves=False)


def _cut_off() -> Place:
    """Have the target without its lease, while it proposes a view that it cannot get."""
    cluster = nodes("abc")
    opened = _busy(cluster, "b")
    cluster.cut("b", "ac")
    cluster.run(1500)
    return Place(cluster, "b", ("a", "c"), opened, serves=False)


def _starting() -> Place:
    cluster = Cluster("abc")
    cluster.start("a")
    cluster.run(30)
    return Place(cluster, "a", ("b", "c"), serves=False)


def _leaving() -> Place:
    cluster = nodes("abc")
    opened = _busy(cluster, "a")
    cluster.hold("b", "a")
    cluster.leave("a")
    cluster.run(1)
    return Place(cluster, "a", ("b", "c"), opened, serves=False)


def _witness() -> Place:
    cluster = Cluster("ab", witnesses="w")
    cluster.start(*cluster.hosts)
    cluster.settle()
    _busy(cluster, "a")
    return Place(cluster, "w", ("a", "b"), serves=False)


PLACES: Final[dict[str, Callable[[], Place]]] = {
    "alone": _alone,
    "active": _active,
    "backup": _backup,
    "pending": _pending,
    "joining": _joining,
    "source of a join": _source,
    "cut off": _cut_off,
    "starting": _starting,
    "leaving": _leaving,
    "witness": _witness,
}


def bystander(place: Place) -> tuple[Client, Opened]:
    """Return a harmless client at the target, with a checkpoint of its own."""
    client = place.cluster.client(place.target)
    table = client.open(b"bystander")
    table.write(b"k", b"v")
    return client, table
