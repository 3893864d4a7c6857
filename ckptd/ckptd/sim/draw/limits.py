"""What a seed may have beside its mix: memory limits, refusals that prove nothing, an operator who acts.

Drawn apart from all else, so that the seeds that have none of it stay what they are.
"""

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

if TYPE_CHECKING:
    from ckptd.sim.draw.options import Options

SENSIBLE: Final = "sensible"
HASTY: Final = "hasty"
"""What operators are like: see `sim.operator`."""

MEMORY: Final = 0.12
"""How many simulations have nodes whose replicas may take no more than so many bytes."""

UNTRUSTED: Final = 0.12
"""How many have a network that forges refusals, and nodes that trust none."""

CHECKPOINT_BYTES: Final = (300, 600, 1200, 3000)
"""What a node may hold of each checkpoint: three sections take 900 bytes, and what is remembered of updates
as much again."""


OPERATED: Final = 0.12
"""How many have an operator who acts while faults come."""


def draw_limits(options: "Options") -> "Options":
    """The options of a seed with what it draws of all this."""
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


def operated_by_hand(options: "Options", random: Random) -> "Options":
    """Machines that are late at first, or burn later, and an operator who does something about it."""
    machines = options.nodes + options.witnesses
    weights = {**options.fault_weights, "burn": random.randint(1, 4), "crash-all": random.randint(1, 3)}
    return replace(
        options,
        operator=random.choice((SENSIBLE, SENSIBLE, HASTY)),
        late=random.randint(1, machines - 1) if machines > 1 and random.random() < 0.6 else 0,
        fault_weights=weights,
        chaos_ns=max(options.chaos_ns, 3 * SECOND_NS),
    )


def short_of_memory(options: "Options", random: Random) -> "Options":
    """Some nodes, or all, may take hardly what there is to hold."""
    small = sorted(random.sample(options.node_ids, random.randint(1, options.nodes)))
    limits = {node_id: random.choice(CHECKPOINT_BYTES) * options.checkpoints for node_id in small}
    return replace(options, memory_bytes_max=limits)


def forged_refusals(options: "Options", random: Random) -> "Options":
    """Nodes that are cut off from each other, where the way between them refuses in their name."""
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


def given_up_alive(options: "Options", random: Random) -> "Options":
    """Pairs that are cut for a while: one serves alone, and is given up by a word to the other."""
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
