"""What one simulation is like. Everything is drawn from its seed, so the seed describes it completely.

Some seeds are gentle, some brutal. They differ in the number of nodes and their arbiter, the speed of the
network and of the disks, the kinds of faults and how often they come, and the sizes of batches and chunks.
Many seeds follow a profile that presses on one rule (`profiles`).
"""

from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Final

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS, Settings
from ckptd.sim.draw.limits import draw_limits
from ckptd.sim.draw.profiles import MICROSECOND_NS, PROFILES, short_turns
from ckptd.sim.draw.shapes import SHAPED_ONE_IN, SHAPES, SPECIAL

NODE_IDS: Final = ("a", "b", "c", "d", "e")
WITNESS_IDS: Final = ("w", "x")

FAULT_KINDS: Final = (
    "crash-process",
    "crash-amid-effects",
    "crash-on-answer",
    "crash-host",
    "crash-all",
    "pause",
    "collector-stall",
    "leave",
    "cut-one-way",
    "cut-pair",
    "isolate",
    "partition",
    "slow-link",
    "slow-node",
    "lossy",
    "break-link",
    "stuck-link",
    "break-client",
    "crash-client",
    "strike-installer",
    "cut-then-crash",
    "lag-then-crash",
    "crash-the-others",
    "forget-and-swap",
    "disk-full",
    "disk-lost",
    "register-cut",
    "witness-cut",
)
"""Every kind of fault, by the name that the time line uses."""

OPERATED_KINDS: Final = ("burn",)
"""The fault kinds that come only where an operator acts."""

SHORT_TURNS: Final = 0.12
"""The share of simulations whose nodes handle only a few frames per turn and whose clients send many."""

TRACKING: Final = 0.3
"""The share of simulations with standbys that track checkpoints."""

NAPPING: Final = 0.15
"""The share of simulations whose clients send nothing for long times, perhaps until their session has
ended."""

HOSTILE: Final = 0.2
"""The share of simulations with a hostile client next to the others."""

ROLLING: Final = 0.05
"""The share of simulations in which nothing but orderly restarts happens."""

ORDERLY_KINDS: Final = ("roll", "roll-at-once")
"""The fault kinds that come only in simulations with orderly restarts."""

EMPHASES: Final = ("activate", "unlink", "close", "expiring", "generate", "mixed", "cancel", "read")
"""The actions that the clients of a seed may prefer. Without that each is so rare that it would hide its
bugs."""

ONE_SIDED: Final = (
    "crash-process",
    "crash-amid-effects",
    "crash-on-answer",
    "crash-host",
    "crash-all",
    "leave",
    "break-link",
    "stuck-link",
    "break-client",
    "crash-client",
    "disk-full",
    "disk-lost",
)
"""The faults that cannot split the living nodes in two sides. `promote` is meant for nothing else."""


_DEFAULTS: Final = Settings("")


IMPOSTORS: Final = 0.3
"""The share of simulations with an impostor that forges heartbeats and with second daemons under a node's
id."""


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
    """How long a client waits for a silent node before it tries another one."""
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
    """True if standbys track what clients have open."""
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


@dataclass(slots=True, frozen=True)
class Voting:
    """How many nodes and witnesses there are, and how their views are decided."""

    nodes: int
    arbiter: str = ""
    on_silent_peer: str = "keep-active"
    witnesses: int = 0


VOTINGS: Final = (
    (4, Voting(1)),
    (12, Voting(2)),
    (4, Voting(2, on_silent_peer="block")),
    (4, Voting(2, on_silent_peer="fence")),
    (4, Voting(2, on_silent_peer="promote")),
    (36, Voting(3)),
    (10, Voting(5)),
    (8, Voting(2, witnesses=1)),
    (2, Voting(3, witnesses=2)),
    (2, Voting(4, witnesses=1)),
    (4, Voting(2, "etcd")),
    (8, Voting(3, "etcd")),
    (2, Voting(5, "etcd")),
)
"""Each with its weight: how often it is drawn."""


def _draw_voting(random: Random, nodes: int) -> Voting:
    possible = [(weight, voting) for weight, voting in VOTINGS if nodes in (0, voting.nodes)]
    weights = [weight for weight, _ in possible]
    return random.choices([voting for _, voting in possible], weights)[0] if possible else Voting(nodes)


def draw_options(
    seed: int, nodes: int = 0, steps_max: int = 0, clients: int = 0, shape: str = "", limits: bool = True
) -> Options:
    """Draw the simulation of a seed. A number other than 0 or a shape that you pass replaces what was drawn.

    With `limits` False, or if you pass nodes or a shape, the result has nothing that `sim.draw.limits` draws.
    """
    random = Random(f"options {seed}")
    voting = _draw_voting(random, nodes)
    drawn = _draw_evenly(seed, random)
    names = list(PROFILES)
    profile = random.choices(names, [PROFILES[name][0] for name in names])[0]
    if voting.nodes > 1 and Random(f"rolling {seed}").random() < ROLLING:
        profile = "rolling"
    drawn = PROFILES[profile][1](drawn, random)
    drawn = replace(
        drawn,
        profile=profile,
        nodes=voting.nodes,
        arbiter=voting.arbiter,
        on_silent_peer=voting.on_silent_peer,
        witnesses=voting.witnesses,
        clients=clients or drawn.clients,
        steps_max=steps_max,
        tracking=Random(f"tracking {seed}").random() < TRACKING,
        napping=Random(f"napping {seed}").random() < NAPPING,
        directory_piece_bytes=Random(f"directory {seed}").choice((1, 700, 512 * 1024, 512 * 1024)),
        hostile=Random(f"hostile {seed}").random() < HOSTILE,
        impostors=Random(f"impostors drawn {seed}").random() < IMPOSTORS,
    )
    as_drawn = not nodes and not shape
    shape = shape or ("" if nodes else _draw_shape(seed))
    # (Drawn with its own generator, so that the other seeds stay as they were.)
    turns = Random(f"turns {seed}")
    if shape:
        shaped = SHAPES[shape](replace(drawn, orderly=False), Random(f"shaped {seed}"))
        drawn = replace(shaped, profile=shape)
        drawn = replace(drawn, clients=clients or drawn.clients)
    elif turns.random() < SHORT_TURNS and not drawn.orderly:
        drawn = short_turns(drawn, turns)
    if limits and as_drawn and not drawn.orderly:
        drawn = draw_limits(drawn)
    return _within_promise(drawn)


def _draw_shape(seed: int) -> str:
    random = Random(f"shape {seed}")
    return random.choice(SPECIAL) if random.randrange(SHAPED_ONE_IN) == 0 else ""


def _within_promise(options: Options) -> Options:
    """Keep only faults that are possible here and against which the arbiter promises something."""
    voters = options.nodes + options.witnesses
    impossible = {
        "forget-and-swap": options.nodes < 3,
        "disk-lost": voters < 3 and options.nodes == 1,
        "burn": voters < 3 and options.nodes == 1,
        "register-cut": options.arbiter != "etcd",
        "witness-cut": not options.witnesses,
    }
    weights = {kind: w for kind, w in options.fault_weights.items() if w and not impossible.get(kind)}
    if options.on_silent_peer == "promote":
        one_sided = (*ONE_SIDED, *ORDERLY_KINDS)
        weights = {kind: w for kind, w in weights.items() if kind in one_sided} or {"crash-process": 1}
        # Short leases together with a loss of many datagrams would also split the nodes in two sides.
        options = replace(options, slow_factor=1, datagram_loss=min(options.datagram_loss, 0.02))
    return replace(options, fault_weights=weights or {"crash-process": 1})


def _draw_evenly(seed: int, random: Random) -> Options:
    severity = random.choice(("none", "gentle", "gentle", "rough", "rough", "brutal"))
    fault_every_ns = {
        "none": 0,
        "gentle": 900 * MILLISECOND_NS,
        "rough": 350 * MILLISECOND_NS,
        "brutal": 120 * MILLISECOND_NS,
    }[severity]
    weights = {
        kind: 0 if random.random() < 0.4 else 1 if kind == "crash-all" else random.randint(1, 6)
        for kind in FAULT_KINDS
    }
    delay_min_ns = random.choice((20, 50, 200)) * MICROSECOND_NS
    lease_ns = random.choice((200, 400, 600)) * MILLISECOND_NS
    busy = random.random() < 0.25
    return Options(
        seed=seed,
        nodes=1,
        clients=random.randint(2, 4),
        checkpoints=random.randint(2, 6),
        chaos_ns=SECOND_NS if busy else random.choice((2, 3, 4)) * SECOND_NS,
        fault_every_ns=fault_every_ns,
        faults_overlap=severity == "brutal" or random.random() < 0.3,
        fault_weights=weights,
        delay_min_ns=delay_min_ns,
        delay_max_ns=delay_min_ns * random.choice((2, 5, 20)),
        datagram_loss=random.choice((0.0, 0.0, 0.02, 0.15)),
        datagram_doubled=random.choice((0.0, 0.05)),
        skew_ppm=random.choice((0, 50, 200, 5_000)),
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
        emphasis=random.choice(("", "", "", *EMPHASES)),
        disk_slow=random.choice((0.0, 0.01, 0.1)),
    )
