"""Draw what a seed adds to its mix: memory limits, forged connection refusals, an operator who acts.

All of it is drawn with a generator of its own, so seeds that draw none of it keep their old behaviour.
"""

from dataclasses import replace
from random import Random
from typing import Final

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.draw.options import Options

SENSIBLE: Final = "sensible"
HASTY: Final = "hasty"
"""The two characters of an operator: see `sim.faults.operator`."""

MEMORY: Final = 0.12
"""The share of simulations in which the replicas of some nodes may take only a limited number of bytes."""

UNTRUSTED: Final = 0.12
"""The share of simulations whose network forges refusals and whose nodes do not trust any refusal."""

CHECKPOINT_BYTES: Final = (300, 600, 1200, 3000)
"""The choices for a node's memory limit, in bytes per checkpoint. Three sections take 900 bytes, and the
remembered updates take as much again."""


OPERATED: Final = 0.12
"""The share of simulations with an operator who acts while faults come."""


def draw_limits(options: Options) -> Options:
    """Return the options of a seed with everything that this module draws for it."""
    random = Random(f"{options.seed}/limits")
    memory, untrusted = random.random() < MEMORY, random.random() < UNTRUSTED
    operated = random.random() < OPERATED
    if memory:
        options = short_of_memory(options, random)
    if untrusted:
        options = replace(options, trust_rst=False)
    if operated:
        options = operated_by_hand(options, random)
    return options


def operated_by_hand(options: Options, random: Random) -> Options:
    """Some machines start late or burn down later, and an operator reacts to it."""
    machines = options.nodes + options.witnesses
    weights = {**options.fault_weights, "burn": random.randint(1, 4), "crash-all": random.randint(1, 3)}
    return replace(
        options,
        operator=random.choice((SENSIBLE, SENSIBLE, HASTY)),
        late=random.randint(1, machines - 1) if machines > 1 and random.random() < 0.6 else 0,
        fault_weights=weights,
        chaos_ns=max(options.chaos_ns, 3 * SECOND_NS),
    )


def short_of_memory(options: Options, random: Random) -> Options:
    """Some nodes, or all, have hardly enough memory for what they have to hold."""
    small = sorted(random.sample(options.node_ids, random.randint(1, options.nodes)))
    limits = {node_id: random.choice(CHECKPOINT_BYTES) * options.checkpoints for node_id in small}
    return replace(options, memory_bytes_max=limits)


def with_leaders(options: Options, random: Random) -> Options:
    """Some clients lead a checkpoint or wait to, next to the others."""
    return replace(
        options,
        leaders=random.randint(2, 4),
        repeats_refused=random.choice((0.0, 0.3)),
        chaos_ns=max(options.chaos_ns, 2 * SECOND_NS),
    )


def forged_refusals(options: Options, random: Random) -> Options:
    """Nodes are cut off from each other, and the network between them refuses connections in their name."""
    return replace(
        options,
        trust_rst=False,
        nodes=random.choice((2, 3)),
        arbiter="",
        on_silent_peer="keep-active",
        witnesses=0,
        clients=4,
        fault_every_ns=200 * MILLISECOND_NS,
        fault_weights={"isolate": 3, "cut-pair": 3, "break-link": 2, "crash-process": 1},
        faults_overlap=False,
        datagram_loss=0.0,
        think_ns=3 * MILLISECOND_NS,
    )


def declared_dead_alive(options: Options, random: Random) -> Options:
    """A pair is cut for a while: one node serves alone, and the operator has the other one give it up."""
    return replace(
        options,
        operator=HASTY,
        nodes=2,
        arbiter="",
        on_silent_peer="keep-active",
        witnesses=0,
        clients=3,
        kinds="sync",
        chaos_ns=SECOND_NS,
        fault_every_ns=250 * MILLISECOND_NS,
        fault_weights={"cut-pair": 1},
        faults_overlap=False,
        datagram_loss=0.0,
        think_ns=3 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
    )
