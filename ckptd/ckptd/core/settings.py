"""A node's settings, with every time and limit that has a name."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000

CLOCK_SKEW: Final = 50
"""The clocks of two machines differ in speed by at most one part in this many."""


class FeatureLevel(IntEnum):
    """Append only. A node of a level understands everything of the levels below."""

    BASE = 0
    """What nodes understand whose heartbeats name no level."""
    TAKEOVER = 1
    """Versions of sections, and conditions of updates."""
    TABLE = 2
    """Sections that expire after a time, and checkpoints that are resized."""


NEWEST: Final = FeatureLevel.TABLE
"""The level of this version."""

EVERY_NODE_MUST: Final = (
    "every configured node must run ckptd 0.1.0 or later, and must have been seen with it once"
)
"""What is missing while a view's level is below `NEWEST`."""

INTERNAL_SETTINGS: Final = (
    "feature_level",
    "work_per_turn",
    "work_per_link",
    "unanswered_per_link",
    "lane_bytes_max",
)
"""Settings that operators have no reason to change: tests and the simulator do. The last four are those of
`turn_budget`."""


@dataclass(slots=True, frozen=True)
class Settings:
    """One node's settings. Times are ns, sizes bytes. All nodes of a cluster agree on all but `node_id`."""

    node_id: str
    cluster: str = "ckptd"
    """The cluster's name; heartbeats of other clusters are ignored."""

    peers: tuple[str, ...] = ()
    """The other data nodes that are configured, by node id."""

    arbiter: str = ""
    """`single`, `pair`, `majority` or `etcd`; "" chooses by the number of voters (1, 2, more)."""

    on_silent_peer: str = "keep-active"
    """What a `pair` does when one node is silent: `keep-active`, `block`, `fence` or `promote`."""

    witness: bool = False
    """This node votes and holds no data."""

    witnesses: tuple[str, ...] = ()
    """Other nodes that vote and hold no data, by node id; they are no `peers`."""

    replicas: int = 3
    """How many replicas a checkpoint that is not collocated gets, at most one per node."""

    trust_rst: bool = True
    """A refused connection proves that a process is dead: true on loopback and within one LAN."""

    heartbeat_ns: int = 25 * MILLISECOND_NS
    lease_ns: int = 600 * MILLISECOND_NS
    grace_ns: int = 800 * MILLISECOND_NS
    """After this long without a heartbeat, the arbiter is asked for a view without the silent member."""

    replica_timeout_ns: int = 600 * MILLISECOND_NS
    session_grace_ns: int = 10 * SECOND_NS
    hold_ns: int = 1 * SECOND_NS
    """How long a request waits at a node, if nothing was done for it, before the answer is TRY_AGAIN."""

    commit_notice_ns: int = 10 * MILLISECOND_NS
    """After this long, an idle active replica reports to the others what is committed (ADR 3)."""

    weak_batch_ns: int = 5 * MILLISECOND_NS
    """How long changes of a weak checkpoint gather before a batch is sent."""

    weak_batch_bytes: int = 256 * 1024
    chunk_bytes: int = 128 * 1024
    chunks_in_flight: int = 4
    directory_piece_bytes: int = 512 * 1024
    """A larger directory travels in pieces of about this size, a smaller one as a whole."""

    log_bytes_max: int = 4 * 1024 * 1024
    """Updates that all replicas have are kept up to this size, for replicas that come back."""

    pending_bytes_max: int = 64 * 1024 * 1024
    """Size of the updates that some replica has not acknowledged; beyond it writers get TRY_AGAIN."""

    leave_ns: int = 10 * SECOND_NS
    """How long a leaving node waits for one that can take over; handing over to it may take as long again."""

    memory_bytes_max: int = 0
    """About how much memory this node's replicas may take; beyond it: NO_MEMORY. 0: no limit."""

    requests_waiting_max: int = 30_000
    """How many requests may wait at a node, for a view or for another node; beyond it, they get TRY_AGAIN.

    A node looks at all of them again and again, which takes a microsecond each.
    """

    requests_waiting_bytes_max: int = 256 * 1024 * 1024
    """How much memory the bodies of those may take together."""

    work_per_turn: int = 5_000
    """Counted work in one event (`core.work_costs`), about 5 ms; the rest continues in the next turn."""

    work_per_link: int = 500
    """How much of that one link may use before the next link is served."""

    unanswered_per_link: int = 128
    """How many requests of one client's link may wait for other nodes; later ones wait for their answers."""

    lane_bytes_max: int = 8 * 1024 * 1024
    """How much of one link may wait for its turn; with more, the link is not read.

    This is enough for 10,000 small requests: a PING after them is read, and answered before them.
    """

    share_of_limits: int = 4
    """One client gets at most this fraction of a shared limit; 4: a quarter."""

    register_probe_ns: int = 2 * SECOND_NS
    """How often a node checks that the `etcd` arbiter answers, when nothing else asks it."""

    feature_level: int = NEWEST
    """What this node understands (`FeatureLevel`). Only tests and the simulator set it to less."""

    checkpoints_max: int = 100_000
    sessions_max: int = 100_000
    opens_per_session_max: int = 25_000
    opens_max: int = 1_000_000
    """Open handles in the cluster; each is a row of the directory, which every member holds."""

    directory_bytes_max: int = 512 * 1024 * 1024
    """About how much memory names of checkpoints, sessions, open handles and kept answers may take together.

    It is the same at every member. Beyond it, more of them are answered NO_RESOURCES.
    """

    @property
    def arbiter_name(self) -> str:
        """The arbiter that is used."""
        if self.arbiter:
            return self.arbiter
        nodes = len(self.voters)
        return "single" if nodes == 1 else "pair" if nodes == 2 else "majority"

    @property
    def all_witnesses(self) -> tuple[str, ...]:
        """All witnesses, including this node if it is one."""
        return tuple(sorted((*self.witnesses, self.node_id))) if self.witness else self.witnesses

    @property
    def voters(self) -> tuple[str, ...]:
        """All configured data nodes and witnesses, sorted: the voters under `majority`."""
        return tuple(sorted((self.node_id, *self.peers, *self.witnesses)))
