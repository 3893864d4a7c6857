"""Profiles that each press on one rule, where the ordinary mixes show a mistake in that rule too rarely.

The search for a mutant draws its seeds in the mutant's shape, if it has one. One ordinary seed in
`SHAPED_ONE_IN` has a shape too. The shape is drawn with its own generator, so that the other seeds stay as
they are.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.draw.leader_shapes import leaders, leaders_frozen, leaders_lost, refusals_repeated
from ckptd.sim.draw.limits import declared_dead_alive, forged_refusals, operated_by_hand, short_of_memory
from ckptd.sim.draw.options import MICROSECOND_NS, Options
from ckptd.sim.draw.profiles import PROFILES, take_overs
from ckptd.sim.draw.resize_shapes import resizes

SHAPED_ONE_IN: Final = 20

Shape = Callable[[Options, Random], Options]


def torn_batches(options: Options, random: Random) -> Options:
    """The active replica of a weak checkpoint dies while the portions of a batch are under way.

    There is only one other replica, so no node has the rest of the batch. Clients write different sections in
    turn and read several at once.
    """
    return replace(
        options,
        nodes=3,
        arbiter="",
        witnesses=0,
        clients=3,
        checkpoints=2,
        kinds="weak",
        replicas=2,
        chaos_ns=2 * SECOND_NS,
        fault_every_ns=250 * MILLISECOND_NS,
        fault_weights={"crash-amid-batch": 6, "crash-process": 1},
        faults_overlap=True,
        restart_max_ns=random.choice((20, 150)) * MILLISECOND_NS,
        delay_min_ns=50 * MICROSECOND_NS,
        delay_max_ns=200 * MICROSECOND_NS,
        think_ns=MILLISECOND_NS,
        pipeline=1,
        patience_ns=150 * MILLISECOND_NS,
        weak_batch_ns=random.choice((20, 40)) * MILLISECOND_NS,
        weak_batch_bytes=8,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        emphasis=random.choice(("read-many", "put", "put")),
    )


def joins_beside_pending(options: Options, random: Random) -> Options:
    """A replica joins while an update in its chunks still waits for another replica, whose link is stuck.

    There are five nodes, so that the directory's changes do not have to pass over that link.
    """
    return replace(
        options,
        nodes=5,
        arbiter="",
        witnesses=0,
        clients=5,
        checkpoints=random.choice((1, 2)),
        kinds="sync",
        replicas=3,
        chaos_ns=3 * SECOND_NS,
        fault_every_ns=random.choice((60, 150)) * MILLISECOND_NS,
        fault_weights={"crash-process": 3, "stuck-link": 6},
        faults_overlap=True,
        restart_max_ns=random.choice((20, 300)) * MILLISECOND_NS,
        delay_min_ns=20 * MICROSECOND_NS,
        delay_max_ns=100 * MICROSECOND_NS,
        think_ns=MILLISECOND_NS,
        pipeline=2,
        patience_ns=random.choice((150, 400)) * MILLISECOND_NS,
        replica_timeout_ns=600 * MILLISECOND_NS,
        lease_ns=600 * MILLISECOND_NS,
        grace_ns=800 * MILLISECOND_NS,
        log_bytes_max=random.choice((0, 2000)),
        emphasis="read",
    )


def roles_to_and_fro(options: Options, random: Random) -> Options:
    """The active role moves back and forth between nodes, while reports to one of them are stuck at times."""
    return replace(
        options,
        nodes=random.choice((3, 4)),
        arbiter="",
        witnesses=0,
        clients=4,
        checkpoints=1,
        kinds="activated",
        replicas=3,
        chaos_ns=3 * SECOND_NS,
        fault_every_ns=random.choice((20, 60)) * MILLISECOND_NS,
        fault_weights={"stuck-briefly": 6, "break-client": 1},
        faults_overlap=True,
        delay_min_ns=200 * MICROSECOND_NS,
        delay_max_ns=random.choice((1, 4)) * MILLISECOND_NS,
        think_ns=MILLISECOND_NS,
        pipeline=2,
        patience_ns=SECOND_NS,
        replica_timeout_ns=600 * MILLISECOND_NS,
        lease_ns=600 * MILLISECOND_NS,
        grace_ns=800 * MILLISECOND_NS,
        emphasis="activate",
    )


def sync_take_overs(options: Options, random: Random) -> Options:
    """One checkpoint with `WR_ALL_REPLICAS` is taken over, while some calls conflict and some calls read."""
    return replace(
        take_overs(options, random),
        nodes=random.choice((3, 5)),
        arbiter="",
        witnesses=0,
        clients=4,
        checkpoints=1,
        kinds="sync",
        pipeline=2,
        think_ns=MILLISECOND_NS,
        emphasis=random.choice(("read", "mixed", "create")),
    )


def async_take_overs(options: Options, random: Random) -> Options:
    """Asynchronous checkpoints lose their tails while clients track them, shortly before all work ends.

    What a client has read of a lost tail stays in its contents until that section is written again.
    """
    return replace(
        take_overs(options, random),
        nodes=3,
        arbiter="",
        witnesses=0,
        clients=4,
        checkpoints=4,
        kinds="async",
        tracking=True,
        chaos_ns=500 * MILLISECOND_NS,
        fault_every_ns=80 * MILLISECOND_NS,
        fault_weights={"lag-then-crash": 10, "crash-process": 1},
        think_ns=MILLISECOND_NS,
        pipeline=1,
        emphasis="put",
    )


def async_splits(options: Options, random: Random) -> Options:
    """Nodes are cut off while their clients keep writing. What they order is not part of what follows."""
    return replace(
        options,
        nodes=3,
        arbiter="",
        witnesses=0,
        clients=4,
        checkpoints=2,
        kinds="async",
        chaos_ns=3 * SECOND_NS,
        fault_every_ns=150 * MILLISECOND_NS,
        fault_weights={"isolate": 6, "partition": 1},
        faults_overlap=False,
        think_ns=2 * MILLISECOND_NS,
        pipeline=1,
        delay_min_ns=50 * MICROSECOND_NS,
        delay_max_ns=200 * MICROSECOND_NS,
        patience_ns=150 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
        emphasis="put",
    )


def sync_splits(options: Options, random: Random) -> Options:
    """Nodes are cut off while clients keep reading there, and other clients keep writing elsewhere."""
    return replace(
        async_splits(options, random),
        kinds="sync",
        clients=5,
        checkpoints=1,
        patience_ns=SECOND_NS,
        emphasis="read",
    )


def amnesiac_voters(options: Options, random: Random) -> Options:
    """A node is cut off, one that continued loses its disk; then another is cut off instead of the first."""
    return replace(
        options,
        nodes=3,
        arbiter="",
        witnesses=0,
        clients=3,
        checkpoints=2,
        chaos_ns=4 * SECOND_NS,
        fault_every_ns=300 * MILLISECOND_NS,
        fault_weights={"forget-and-swap": 6, "disk-lost": 2},
        faults_overlap=False,
        restart_max_ns=50 * MILLISECOND_NS,
        think_ns=10 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
    )


def joins_and_retries(options: Options, random: Random) -> Options:
    """A replica joins while the active one's answers are stuck, then takes over and receives the retries.

    Two of the five nodes hold replicas, so that a third one joins when one of them is lost.
    """
    return replace(
        options,
        nodes=5,
        arbiter="",
        witnesses=0,
        clients=5,
        checkpoints=1,
        kinds=random.choice(("sync", "async")),
        replicas=2,
        chaos_ns=4 * SECOND_NS,
        fault_every_ns=300 * MILLISECOND_NS,
        fault_weights={"join-then-crash": 1},
        faults_overlap=False,
        restart_max_ns=300 * MILLISECOND_NS,
        delay_min_ns=20 * MICROSECOND_NS,
        delay_max_ns=100 * MICROSECOND_NS,
        think_ns=2 * MILLISECOND_NS,
        pipeline=2,
        patience_ns=SECOND_NS,
        replica_timeout_ns=600 * MILLISECOND_NS,
        lease_ns=600 * MILLISECOND_NS,
        grace_ns=800 * MILLISECOND_NS,
        log_bytes_max=0,
        emphasis=random.choice(("generate", "put")),
    )


def sole_replicas(options: Options, random: Random) -> Options:
    """The only node that holds a checkpoint loses power, while clients close and open what there is."""
    return replace(
        options,
        nodes=3,
        arbiter="",
        witnesses=0,
        clients=4,
        checkpoints=4,
        kinds="all",
        replicas=1,
        chaos_ns=3 * SECOND_NS,
        fault_every_ns=400 * MILLISECOND_NS,
        fault_weights={"crash-host": 4, "pause": 1},
        faults_overlap=False,
        restart_max_ns=-1,
        think_ns=2 * MILLISECOND_NS,
        pipeline=1,
        patience_ns=150 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
        session_grace_ns=10 * SECOND_NS,
        hold_ns=100 * MILLISECOND_NS,
        emphasis="close",
    )


def closed_over_restarts(options: Options, random: Random) -> Options:
    """Every node is restarted now and then, so a node that received the directory becomes coordinator.

    There are few clients and they close much, so there are checkpoints that no client has open.
    """
    return replace(
        options,
        nodes=random.choice((2, 3)),
        arbiter="",
        on_silent_peer="keep-active",
        witnesses=0,
        clients=2,
        checkpoints=6,
        kinds="all",
        chaos_ns=4 * SECOND_NS,
        fault_every_ns=250 * MILLISECOND_NS,
        fault_weights={"crash-process": 4, "leave": 1},
        faults_overlap=False,
        restart_max_ns=50 * MILLISECOND_NS,
        datagram_loss=0.0,
        think_ns=5 * MILLISECOND_NS,
        pipeline=1,
        patience_ns=150 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
        session_grace_ns=10 * SECOND_NS,
        emphasis="close",
    )


def last_answers(options: Options, random: Random) -> Options:
    """A coordinator answers an OPEN, a CLOSE or an UNLINK and dies before others learn that it is done."""
    return replace(
        options,
        nodes=3,
        arbiter="",
        witnesses=0,
        clients=4,
        checkpoints=4,
        kinds="all",
        chaos_ns=3 * SECOND_NS,
        fault_every_ns=150 * MILLISECOND_NS,
        fault_weights={"crash-on-answer": 10, "slow-link": 3, "slow-node": 1},
        faults_overlap=True,
        restart_max_ns=100 * MILLISECOND_NS,
        delay_min_ns=50 * MICROSECOND_NS,
        delay_max_ns=MILLISECOND_NS,
        datagram_loss=0.0,
        think_ns=2 * MILLISECOND_NS,
        pipeline=1,
        patience_ns=150 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
        session_grace_ns=10 * SECOND_NS,
        emphasis=random.choice(("close", "unlink")),
    )


def calls_run_out(options: Options, random: Random) -> Options:
    """Calls time out while no node can tell whether they are done, because their answers are stuck."""
    return replace(
        options,
        nodes=5,
        arbiter="",
        witnesses=0,
        clients=5,
        checkpoints=2,
        kinds="sync",
        replicas=2,
        chaos_ns=3 * SECOND_NS,
        fault_every_ns=250 * MILLISECOND_NS,
        fault_weights={"stuck-link": 5, "crash-process": 3, "isolate": 2},
        faults_overlap=True,
        restart_max_ns=600 * MILLISECOND_NS,
        datagram_loss=0.0,
        think_ns=5 * MILLISECOND_NS,
        pipeline=1,
        call_ns=500 * MILLISECOND_NS,
        patience_ns=400 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=100 * MILLISECOND_NS,
        hold_ns=SECOND_NS,
        emphasis=random.choice(("read", "put", "unlink")),
    )


def continued_alone(options: Options, random: Random) -> Options:
    """The others continue without a node that is cut off, and die as soon as it receives from them again."""
    return replace(
        options,
        nodes=random.choice((2, 3)),
        arbiter=random.choice(("", "etcd")),
        on_silent_peer="keep-active",
        witnesses=0,
        clients=3,
        checkpoints=2,
        chaos_ns=4 * SECOND_NS,
        fault_every_ns=300 * MILLISECOND_NS,
        fault_weights={"cut-then-crash": 4, "crash-the-others": 4, "register-cut": 1},
        faults_overlap=False,
        restart_max_ns=random.choice((5, 50)) * MILLISECOND_NS,
        datagram_loss=0.0,
        think_ns=10 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
    )


def impostors(options: Options, random: Random) -> Options:
    """An impostor forges heartbeats. Nodes lose their disks, some after a start whose clock was ahead."""
    return replace(
        options,
        nodes=3,
        arbiter="",
        witnesses=0,
        clients=2,
        checkpoints=2,
        impostors=True,
        chaos_ns=4 * SECOND_NS,
        fault_every_ns=250 * MILLISECOND_NS,
        fault_weights={"disk-lost": 4, "crash-process": 1},
        faults_overlap=False,
        restart_max_ns=50 * MILLISECOND_NS,
        datagram_loss=0.0,
        think_ns=10 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
    )


SHAPES: Final[dict[str, Shape]] = {
    "torn batches": torn_batches,
    "joins next to pending": joins_beside_pending,
    "roles to and fro": roles_to_and_fro,
    "sync take-overs": sync_take_overs,
    "async take-overs": async_take_overs,
    "async splits": async_splits,
    "sync splits": sync_splits,
    "amnesiac voters": amnesiac_voters,
    "joins and retries": joins_and_retries,
    "only replicas": sole_replicas,
    "closed over restarts": closed_over_restarts,
    "last answers": last_answers,
    "calls run out": calls_run_out,
    "continued alone": continued_alone,
    "impostors": impostors,
    "leaders": leaders,
    "leaders frozen": leaders_frozen,
    "leaders lost": leaders_lost,
    "refusals repeated": refusals_repeated,
    "resizes": resizes,
    "short of memory": short_of_memory,
    "forged refusals": forged_refusals,
    "operated by hand": operated_by_hand,
    "declared dead alive": declared_dead_alive,
    **{name: profile for name, (_, profile) in PROFILES.items()},
}
"""By name: the special shapes, and every ordinary profile."""

_OF_MUTANTS: Final = (
    "impostors",
    "leaders",
    "leaders frozen",
    "leaders lost",
    "refusals repeated",
    "resizes",
    "short of memory",
    "forged refusals",
    "operated by hand",
    "declared dead alive",
)
"""The shapes that ordinary seeds do not draw as a shape: they draw these things separately."""

SPECIAL: Final = tuple(name for name in SHAPES if name not in (*PROFILES, *_OF_MUTANTS))
