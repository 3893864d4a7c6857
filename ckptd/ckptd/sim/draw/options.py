"""What one simulation is like: the cluster, its clients, the faults that come, and every limit."""

from dataclasses import dataclass, field, fields
from typing import Final

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS, Settings

NODE_IDS: Final = ("a", "b", "c", "d", "e")
WITNESS_IDS: Final = ("w", "x")

MICROSECOND_NS: Final = 1000

_DEFAULTS: Final = Settings("")


@dataclass(slots=True, frozen=True)
class Options:
    """One simulation. Times are in ns, chances out of 1.0; faults not in `fault_weights` do not occur."""

    seed: int
    nodes: int
    clients: int
    checkpoints: int
    chaos_ns: int
    """How long clients work while faults come."""
    fault_every_ns: int
    """The mean time between faults; 0 if none come."""
    faults_overlap: bool
    fault_weights: dict[str, int]
    delay_min_ns: int
    delay_max_ns: int
    datagram_loss: float
    datagram_doubled: float
    skew_ppm: int
    wall_error_ns: int
    think_ns: int
    """The mean pause of a client between two calls."""
    pipeline: int
    """How many calls one client has under way at once."""
    call_ns: int
    """The time-out of a call."""
    patience_ns: int
    """How long a client waits for a node that does not answer before it tries another one."""
    replicas: int
    heartbeat_ns: int
    lease_ns: int
    grace_ns: int
    replica_timeout_ns: int
    session_grace_ns: int
    hold_ns: int
    weak_batch_ns: int
    weak_batch_bytes: int
    chunk_bytes: int
    chunks_in_flight: int
    log_bytes_max: int
    directory_piece_bytes: int = 512 * 1024
    profile: str = "any"
    kinds: str = "all"
    """Which kinds of checkpoints there are: a name in `checkpoints.KINDS`."""
    emphasis: str = ""
    """The action that clients prefer to all others; "" for none."""
    arbiter: str = ""
    on_silent_peer: str = "keep-active"
    witnesses: int = 0
    disk_slow: float = 0.0
    """How often (out of 1.0) a write to disk takes long."""
    pause_min_ns: int = 0
    pause_max_ns: int = 0
    """How long pauses last; 0: as long as other faults."""
    restart_max_ns: int = -1
    """How long a process that died stays away at most; -1: as long as other faults."""
    slow_factor: int = 1
    """How many times slower the links of one node are while faults come."""
    orderly: bool = False
    """True if nodes only leave cleanly and come back in time. Then nothing at all may be lost."""
    tracking: bool = False
    """True if clients track what they have open."""
    leaders: int = 0
    """How many more clients lead a checkpoint, or wait to."""
    resizers: int = 0
    """How many more clients resize checkpoints."""
    repeats_refused: float = 0.0
    """How often (out of 1.0) a client whose update was refused for good sends a duplicate of it elsewhere."""
    napping: bool = False
    """True if clients send nothing for long times now and then."""
    hostile: bool = False
    """True if one client sends whatever may hurt a node."""
    impostors: bool = False
    """True if an impostor forges heartbeats and second daemons run under a node's id."""
    work_per_turn: int = _DEFAULTS.work_per_turn
    work_per_link: int = _DEFAULTS.work_per_link
    unanswered_per_link: int = _DEFAULTS.unanswered_per_link
    lane_bytes_max: int = _DEFAULTS.lane_bytes_max
    """With a daemon's settings for these four, no work of a simulation would ever wait for its turn."""
    memory_bytes_max: dict[str, int] = field(default_factory=dict)
    """How many bytes the replicas of some nodes may take, by node id."""
    trust_rst: bool = True
    """True if a refused connection proves a node dead. If False, the network forges refusals."""
    operator: str = ""
    """The character of the operator who acts while faults come ("sensible", "hasty"); "" if there is none."""
    late: int = 0
    """How many machines are still missing when the others are started for the first time."""
    steps_max: int = 0
    """The number of steps after which the simulation stops, without a verdict on convergence; 0: no limit."""

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The ids of the configured nodes."""
        return NODE_IDS[: self.nodes]

    @property
    def witness_ids(self) -> tuple[str, ...]:
        """The ids of the configured witnesses."""
        return WITNESS_IDS[: self.witnesses]

    def settings(self, node_id: str) -> Settings:
        """Return the settings that a node is started with."""
        return Settings(
            node_id=node_id,
            peers=tuple(peer for peer in self.node_ids if peer != node_id),
            witness=node_id in self.witness_ids,
            witnesses=tuple(peer for peer in self.witness_ids if peer != node_id),
            arbiter=self.arbiter,
            on_silent_peer=self.on_silent_peer,
            replicas=self.replicas,
            heartbeat_ns=self.heartbeat_ns,
            lease_ns=self.lease_ns,
            grace_ns=self.grace_ns,
            replica_timeout_ns=self.replica_timeout_ns,
            session_grace_ns=self.session_grace_ns,
            hold_ns=self.hold_ns,
            weak_batch_ns=self.weak_batch_ns,
            weak_batch_bytes=self.weak_batch_bytes,
            chunk_bytes=self.chunk_bytes,
            chunks_in_flight=self.chunks_in_flight,
            directory_piece_bytes=self.directory_piece_bytes,
            log_bytes_max=self.log_bytes_max,
            leave_ns=2 * SECOND_NS,
            work_per_turn=self.work_per_turn,
            work_per_link=self.work_per_link,
            unanswered_per_link=self.unanswered_per_link,
            lane_bytes_max=self.lane_bytes_max,
            memory_bytes_max=self.memory_bytes_max.get(node_id, 0),
            trust_rst=self.trust_rst,
        )

    def lines(self) -> list[str]:
        """Return every option with its name, for people."""
        shown = []
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name == "fault_weights":
                value = ", ".join(f"{kind} {weight}" for kind, weight in value.items() if weight)
            elif option.name.endswith("_ns") and value >= 0:
                value = f"{value / MILLISECOND_NS:g} ms"
            shown.append(f"{option.name.removesuffix('_ns'):<20} {value}")
        return shown
