"""What one simulation is like: drawn from its seed alone, so that the seed says everything.

Some seeds are gentle, some brutal; the number of nodes, the speed of the network, the
kinds of faults and how often they come, the sizes of batches and chunks all differ.
"""

from dataclasses import dataclass, fields
from random import Random
from typing import Final

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS, Settings

MICROSECOND_NS: Final = 1000
NODE_IDS: Final = ("a", "b", "c", "d", "e")

FAULT_KINDS: Final = (
    "crash-process",
    "crash-amid-effects",
    "crash-host",
    "crash-all",
    "pause",
    "leave",
    "cut-one-way",
    "cut-pair",
    "isolate",
    "partition",
    "slow-link",
    "slow-node",
    "lossy",
    "break-link",
    "break-client",
    "crash-client",
)
"""Every kind of fault, by the name that the time line gives it."""


@dataclass(slots=True, frozen=True)
class Options:
    """One simulation. Times are ns; chances are of 1.0; `fault_weights` are by place in FAULT_KINDS."""

    seed: int
    nodes: int
    clients: int
    checkpoints: int
    chaos_ns: int
    """How long clients work while faults come."""
    fault_every_ns: int
    """Mean time between faults; 0: none come."""
    faults_overlap: bool
    fault_weights: tuple[int, ...]
    delay_min_ns: int
    delay_max_ns: int
    datagram_loss: float
    datagram_doubled: float
    skew_ppm: int
    wall_error_ns: int
    think_ns: int
    """Mean pause of a client between two calls."""
    pipeline: int
    """Calls that one client has under way at once."""
    call_ns: int
    """A call's time-out."""
    patience_ns: int
    """Silence after which a client tries another node."""
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
    steps_max: int = 0
    """Events after which the simulation stops without a verdict on convergence; 0: no limit."""

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The configured nodes."""
        return NODE_IDS[: self.nodes]

    def settings(self, node_id: str) -> Settings:
        """What a node is started with."""
        return Settings(
            node_id=node_id,
            peers=tuple(peer for peer in self.node_ids if peer != node_id),
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
            log_bytes_max=self.log_bytes_max,
            leave_ns=2 * SECOND_NS,
        )

    def lines(self) -> list[str]:
        """For people: every option by its name."""
        shown = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "fault_weights":
                value = ", ".join(f"{k} {w}" for k, w in zip(FAULT_KINDS, value, strict=True) if w)
            elif field.name.endswith("_ns"):
                value = f"{value / MILLISECOND_NS:g} ms"
            shown.append(f"{field.name.removesuffix('_ns'):<20} {value}")
        return shown


def draw_options(seed: int, nodes: int = 0, steps_max: int = 0, clients: int = 0) -> Options:
    """The simulation of a seed; `nodes` and `clients` other than 0 replace what was drawn."""
    random = Random(f"options {seed}")
    drawn_nodes = random.choice((1, 2, 2, 3, 3, 3, 3, 3, 5))
    severity = random.choice(("none", "gentle", "gentle", "rough", "rough", "brutal"))
    fault_every_ns = {
        "none": 0,
        "gentle": 900 * MILLISECOND_NS,
        "rough": 350 * MILLISECOND_NS,
        "brutal": 120 * MILLISECOND_NS,
    }[severity]
    weights = tuple(
        0 if random.random() < 0.4 else 1 if kind == "crash-all" else random.randint(1, 6)
        for kind in FAULT_KINDS
    )
    delay_min_ns = random.choice((20, 50, 200)) * MICROSECOND_NS
    lease_ns = random.choice((200, 400, 600)) * MILLISECOND_NS
    drawn_clients = random.randint(2, 4)
    busy = random.random() < 0.25
    return Options(
        seed=seed,
        nodes=nodes or drawn_nodes,
        clients=clients or drawn_clients,
        checkpoints=random.randint(2, 6),
        chaos_ns=SECOND_NS if busy else random.choice((2, 3, 4)) * SECOND_NS,
        fault_every_ns=fault_every_ns,
        faults_overlap=severity == "brutal" or random.random() < 0.3,
        fault_weights=weights if any(weights) else (1,) * len(FAULT_KINDS),
        delay_min_ns=delay_min_ns,
        delay_max_ns=delay_min_ns * random.choice((2, 5, 20)),
        datagram_loss=random.choice((0.0, 0.0, 0.02, 0.15)),
        datagram_doubled=random.choice((0.0, 0.05)),
        skew_ppm=random.choice((0, 50, 200)),
        wall_error_ns=random.choice((0, 5, 300)) * MILLISECOND_NS,
        think_ns=MILLISECOND_NS if busy else random.choice((3, 10, 30)) * MILLISECOND_NS,
        pipeline=random.choice((1, 1, 2, 4)),
        call_ns=random.choice((1, 3, 10)) * SECOND_NS,
        patience_ns=random.choice((150, 400, 1000)) * MILLISECOND_NS,
        replicas=random.choice((2, 3, 3)),
        heartbeat_ns=random.choice((25, 25, 50)) * MILLISECOND_NS,
        lease_ns=lease_ns,
        grace_ns=lease_ns * 4 // 3,
        replica_timeout_ns=random.choice((lease_ns, lease_ns // 2)),
        session_grace_ns=random.choice((1, 3, 10)) * SECOND_NS,
        hold_ns=random.choice((100, 1000)) * MILLISECOND_NS,
        weak_batch_ns=random.choice((1, 5, 40)) * MILLISECOND_NS,
        weak_batch_bytes=random.choice((24, 200, 256 * 1024)),
        chunk_bytes=random.choice((40, 400, 128 * 1024)),
        chunks_in_flight=random.choice((1, 4)),
        log_bytes_max=random.choice((0, 2000, 4 * 1024 * 1024)),
        steps_max=steps_max,
    )
