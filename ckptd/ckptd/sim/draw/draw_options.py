"""Draw the options of one simulation from its seed, so that the seed describes it completely.

Some seeds are gentle, some brutal. They differ in the number of nodes and their arbiter, the speed of the
network and of the disks, the kinds of faults and how often they come, and the sizes of batches and chunks.
Many seeds follow a profile that presses on one rule (`profiles`).
"""

from dataclasses import dataclass, replace
from random import Random
from typing import Final

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.draw.limits import draw_limits, with_leaders
from ckptd.sim.draw.options import MICROSECOND_NS, Options
from ckptd.sim.draw.profiles import PROFILES, short_turns
from ckptd.sim.draw.shapes import SHAPED_ONE_IN, SHAPES, SPECIAL

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
"""The share of simulations with clients that track checkpoints."""

LEADING: Final = 0.35
"""The share of simulations with clients that lead checkpoints."""

RESIZING: Final = 0.15
"""The share of simulations with clients that resize checkpoints."""

NAPPING: Final = 0.15
"""The share of simulations whose clients send nothing for long times, perhaps until their session has
ended."""

HOSTILE: Final = 0.2
"""The share of simulations with a hostile client next to the others."""

ROLLING: Final = 0.05
"""The share of simulations in which nothing but orderly restarts happens."""

IMPOSTORS: Final = 0.3
"""The share of simulations with an impostor that forges heartbeats and with second daemons under a node's
id."""

ORDERLY_KINDS: Final = ("roll", "roll-at-once")
"""The fault kinds that come only in simulations with orderly restarts."""

BIASES: Final = ("activate", "unlink", "close", "expiring", "generate", "mixed", "cancel", "read")
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
    leading = Random(f"leaders {seed}")
    if as_drawn and not drawn.leaders and leading.random() < LEADING:
        drawn = with_leaders(drawn, leading)
    resizing = Random(f"resizers {seed}")
    if limits and as_drawn and not drawn.resizers and resizing.random() < RESIZING:
        drawn = replace(drawn, resizers=resizing.randint(1, 2))
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
        emphasis=random.choice(("", "", "", *BIASES)),
        disk_slow=random.choice((0.0, 0.01, 0.1)),
    )
