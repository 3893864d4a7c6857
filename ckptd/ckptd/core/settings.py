"""What a node is told at its start, and every time and limit that has a name."""

from dataclasses import dataclass
from typing import Final

MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000


TURN_SETTINGS: Final = ("work_per_turn", "work_per_link", "unanswered_per_link", "lane_bytes_max")
"""Settings of `turns` that no operator has a reason to change: tests and the simulator do."""


@dataclass(slots=True, frozen=True)
class Settings:
    """One node's settings. Times are ns, sizes bytes. All nodes of a cluster agree on all but the first."""

    node_id: str
    cluster: str = "ckptd"
    """The cluster's name: heartbeats of others are ignored."""

    peers: tuple[str, ...] = ()
    """The other data nodes that are configured, by node id."""

    arbiter: str = ""
    """`single`, `pair`, `majority` or `etcd`; "" chooses by the number of voters (1, 2, more)."""

    on_silent_peer: str = "keep-active"
    """What a `pair` does when one is silent: `keep-active`, `block`, `fence` or `promote`."""

    witness: bool = False
    """This node votes and holds no data."""

    witnesses: tuple[str, ...] = ()
    """Other nodes that vote and hold no data, by node id; they are no `peers`."""

    replicas: int = 3
    """How many replicas a checkpoint that is not collocated gets, at most one a node."""

    trust_rst: bool = True
    """A refused connection proves that a process is dead: true on loopback and on one LAN."""

    heartbeat_ns: int = 25 * MILLISECOND_NS
    lease_ns: int = 600 * MILLISECOND_NS
    grace_ns: int = 800 * MILLISECOND_NS
    """Silence after which the arbiter is asked for a view without the silent member."""

    replica_timeout_ns: int = 600 * MILLISECOND_NS
    session_grace_ns: int = 10 * SECOND_NS
    hold_ns: int = 1 * SECOND_NS
    """How long a request that nothing was done for waits at a node before it is TRY_AGAIN."""

    commit_notice_ns: int = 10 * MILLISECOND_NS
    """An idle active replica tells the others what is committed after this long (ADR 3)."""

    weak_batch_ns: int = 5 * MILLISECOND_NS
    """How long changes of a weak checkpoint gather before a batch is sent."""

    weak_batch_bytes: int = 256 * 1024
    chunk_bytes: int = 128 * 1024
    chunks_in_flight: int = 4
    directory_piece_bytes: int = 512 * 1024
    """A larger directory travels in pieces of about this size, a smaller one as a whole."""

    log_bytes_max: int = 4 * 1024 * 1024
    """Updates that everybody has are kept up to this size, for replicas that come back."""

    pending_bytes_max: int = 64 * 1024 * 1024
    """Updates that some replica has not acknowledged; beyond it writers are answered TRY_AGAIN."""

    leave_ns: int = 10 * SECOND_NS
    """How long a leaving node waits for one that can take over; to hand over to it may take as long again."""

    memory_bytes_max: int = 0
    """What this node's replicas may take together, about; more is answered NO_MEMORY. 0: no limit."""

    requests_waiting_max: int = 30_000
    """Requests that wait at a node, for a view or for another node; more are answered TRY_AGAIN.

    A node looks at all of them again and again, a microsecond each."""

    requests_waiting_bytes_max: int = 256 * 1024 * 1024
    """What the bodies of those may take together."""

    work_per_turn: int = 5_000
    """Counted work in one event (`core.work`), about 5 ms; what is left goes on in the next turn."""

    work_per_link: int = 500
    """Of that, what one link may use before the next one is served."""

    unanswered_per_link: int = 128
    """Requests of one client's link that wait for other nodes; further ones wait for their answers."""

    lane_bytes_max: int = 8 * 1024 * 1024
    """What waits of one link for its turn; with more the link is not read.

    Enough for 10,000 small requests: a PING behind them is read, and answered before them."""

    share_of_limits: int = 4
    """One client gets at most this part of a limit that all share; 4: a quarter."""

    register_probe_ns: int = 2 * SECOND_NS
    """How often a node asks the `etcd` arbiter whether it is there, when nothing else asks it."""

    checkpoints_max: int = 100_000
    sessions_max: int = 100_000
    opens_per_session_max: int = 25_000
    opens_max: int = 1_000_000
    """Open handles in the cluster: each is a row of the directory, which every member holds."""

    directory_bytes_max: int = 512 * 1024 * 1024
    """What checkpoints' names, sessions, open handles and remembered answers may take together, about.

    It is the same at every member. Beyond it more of them are answered NO_RESOURCES."""

    @property
    def arbiter_name(self) -> str:
        """The arbiter in force."""
        if self.arbiter:
            return self.arbiter
        nodes = len(self.voters)
        return "single" if nodes == 1 else "pair" if nodes == 2 else "majority"

    @property
    def all_witnesses(self) -> tuple[str, ...]:
        """Every witness, this node included where it is one."""
        return tuple(sorted((*self.witnesses, self.node_id))) if self.witness else self.witnesses

    @property
    def voters(self) -> tuple[str, ...]:
        """The configured data nodes and witnesses, sorted: who votes under `majority`."""
        return tuple(sorted((self.node_id, *self.peers, *self.witnesses)))
