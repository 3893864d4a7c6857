"""Mixes of faults and work that differ from each other as much as possible. Each seed draws one.

A fixed gentle mix hid a bug for 4,000 seeds that harsh mixes showed in 15 of 2,500. So there is one mix that
is drawn evenly from everything ("any"), and there are others that each press on one rule. A profile changes
options that were drawn before.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.draw.options import MICROSECOND_NS, Options

SKEW_PPM_MAX: Final = 9_800
"""The largest skew of a clock. Two clocks that are this far off, one fast and one slow, stay within the
core's bound of one part in fifty."""

Profile = Callable[[Options, Random], Options]


def any_mix(options: Options, random: Random) -> Options:
    """Keep the options as drawn."""
    return options


def contended(options: Options, random: Random) -> Options:
    """Clients call without a pause, and links between nodes are slow now and then."""
    return replace(
        options,
        clients=4,
        checkpoints=random.choice((1, 3, 6)),
        chaos_ns=SECOND_NS,
        fault_every_ns=random.choice((30, 50, 120)) * MILLISECOND_NS,
        fault_weights={"slow-link": 3, "slow-node": 3, "break-client": random.choice((0, 0, 2))},
        faults_overlap=True,
        think_ns=random.choice((1, 2)) * MILLISECOND_NS,
        delay_min_ns=50 * MICROSECOND_NS,
        delay_max_ns=200 * MICROSECOND_NS,
        datagram_loss=0.0,
    )


def broken_links(options: Options, random: Random) -> Options:
    """Connections are reset all the time: everything is sent again, and calls move to other nodes."""
    weights = {"break-link": 4, "break-client": 4, "crash-process": random.choice((0, 1, 3))}
    return replace(
        options,
        clients=random.choice((2, 4)),
        chaos_ns=random.choice((1, 2)) * SECOND_NS,
        fault_every_ns=random.choice((5, 20, 60)) * MILLISECOND_NS,
        fault_weights=weights,
        faults_overlap=True,
        think_ns=random.choice((1, 3, 10)) * MILLISECOND_NS,
        patience_ns=random.choice((150, 400)) * MILLISECOND_NS,
    )


def short_pauses(options: Options, random: Random) -> Options:
    """Nodes pause for longer than the replica time-out, some also for longer than the lease."""
    lease_ns = random.choice((300, 600)) * MILLISECOND_NS
    return replace(
        options,
        clients=4,
        fault_every_ns=random.choice((200, 400)) * MILLISECOND_NS,
        fault_weights={"pause": 4, "isolate": random.choice((0, 2)), "cut-one-way": random.choice((0, 2))},
        faults_overlap=False,
        think_ns=3 * MILLISECOND_NS,
        lease_ns=lease_ns,
        grace_ns=lease_ns * 4 // 3,
        replica_timeout_ns=100 * MILLISECOND_NS,
        patience_ns=SECOND_NS,
        pause_min_ns=110 * MILLISECOND_NS,
        pause_max_ns=lease_ns * random.choice((9, 9, 20)) // 10,
    )


def restarts(options: Options, random: Random) -> Options:
    """Processes die and are back at once, some before any node has noticed."""
    return replace(
        options,
        fault_every_ns=random.choice((40, 120, 300)) * MILLISECOND_NS,
        fault_weights={
            "crash-process": 4,
            "crash-amid-effects": 4,
            "crash-on-answer": 2,
            "crash-host": random.choice((0, 2)),
            "crash-all": random.choice((0, 1)),
            "leave": random.choice((0, 1)),
            "disk-lost": 2,
            "disk-full": random.choice((0, 2)),
        },
        faults_overlap=random.random() < 0.7,
        restart_max_ns=random.choice((1, 20, 150)) * MILLISECOND_NS,
    )


def installers_cut(options: Options, random: Random) -> Options:
    """The coordinator that collects for a view is cut off, or dies, in the middle of it."""
    return replace(
        options,
        fault_every_ns=random.choice((100, 300)) * MILLISECOND_NS,
        fault_weights={
            "strike-installer": 4,
            "isolate": random.choice((0, 2)),
            "crash-process": 3,
            "pause": random.choice((0, 2)),
            "leave": random.choice((0, 1)),
        },
        faults_overlap=True,
        restart_max_ns=random.choice((0, 100)) * MILLISECOND_NS,
    )


def many_checkpoints(options: Options, random: Random) -> Options:
    """About thirty checkpoints, so that take-overs, joins and placement happen at the same time."""
    return replace(
        options,
        clients=random.choice((2, 3)),
        checkpoints=random.randint(15, 30),
        chaos_ns=2 * SECOND_NS,
        think_ns=random.choice((3, 10)) * MILLISECOND_NS,
    )


def stalls(options: Options, random: Random) -> Options:
    """Nodes handle nothing for a while, as in a garbage collection, and then handle their timer first."""
    return replace(
        options,
        fault_every_ns=random.choice((50, 150)) * MILLISECOND_NS,
        fault_weights={
            "collector-stall": 6,
            "break-link": random.choice((0, 1)),
            "cut-one-way": random.choice((0, 1)),
        },
        faults_overlap=True,
    )


def skewed_clocks(options: Options, random: Random) -> Options:
    """Clocks run as differently as the core allows, and faults make leases end."""
    return replace(
        options,
        skew_ppm=SKEW_PPM_MAX,
        fault_every_ns=random.choice((200, 500)) * MILLISECOND_NS,
        fault_weights={"isolate": 3, "partition": 3, "pause": 3, "cut-one-way": 2, "crash-host": 1},
        think_ns=random.choice((1, 3)) * MILLISECOND_NS,
    )


def one_slow_node(options: Options, random: Random) -> Options:
    """One node is far away, or slow, all the time."""
    return replace(
        options,
        slow_factor=random.choice((10, 30, 100, 300)),
        think_ns=random.choice((1, 3)) * MILLISECOND_NS,
    )


def take_overs(options: Options, random: Random) -> Options:
    """Active replicas die under load, while some replicas learn of everything later than others."""
    return replace(
        options,
        clients=random.choice((2, 4)),
        checkpoints=random.choice((1, 2, 4)),
        chaos_ns=2 * SECOND_NS,
        fault_every_ns=random.choice((100, 200)) * MILLISECOND_NS,
        fault_weights={
            "crash-process": 3,
            "crash-amid-effects": 3,
            "crash-on-answer": 6,
            "lag-then-crash": 10,
            "slow-node": 2,
            "slow-link": 2,
            "leave": random.choice((0, 1)),
            "break-link": random.choice((0, 8)),
            "strike-installer": 3,
        },
        faults_overlap=True,
        think_ns=random.choice((1, 2)) * MILLISECOND_NS,
        pipeline=random.choice((1, 2)),
        kinds=random.choice(("all", "sync", "sync", "async")),
        emphasis=random.choice((options.emphasis, "read", "close", "unlink")),
        patience_ns=150 * MILLISECOND_NS,
        restart_max_ns=random.choice((20, 300)) * MILLISECOND_NS,
        delay_min_ns=50 * MICROSECOND_NS,
        delay_max_ns=random.choice((100, 1000)) * MICROSECOND_NS,
    )


def rivals(options: Options, random: Random) -> Options:
    """Several nodes propose views at once over slow links, while voters are restarted."""
    return replace(
        options,
        clients=1,
        checkpoints=1,
        chaos_ns=4 * SECOND_NS,
        fault_every_ns=random.choice((15, 30, 60)) * MILLISECOND_NS,
        fault_weights={
            "cut-one-way": 4,
            "cut-pair": 3,
            "crash-process": 5,
            "crash-amid-effects": 3,
            "disk-lost": 2,
            "register-cut": 1,
            "witness-cut": 1,
        },
        faults_overlap=True,
        restart_max_ns=random.choice((1, 10)) * MILLISECOND_NS,
        delay_min_ns=200 * MICROSECOND_NS,
        delay_max_ns=random.choice((2, 20, 40)) * MILLISECOND_NS,
        think_ns=30 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
    )


def split(options: Options, random: Random) -> Options:
    """Cuts of every shape come one after the other, and processes die at the same time."""
    return replace(
        options,
        chaos_ns=random.choice((3, 4)) * SECOND_NS,
        fault_every_ns=random.choice((150, 400)) * MILLISECOND_NS,
        fault_weights={
            "cut-one-way": 4,
            "cut-pair": 3,
            "isolate": 3,
            "partition": 3,
            "crash-process": 2,
            "crash-host": random.choice((0, 1)),
            "cut-then-crash": 3,
            "crash-the-others": 2,
            "forget-and-swap": 3,
            "disk-lost": 2,
            "register-cut": 2,
            "witness-cut": 2,
        },
        faults_overlap=random.random() < 0.5,
        think_ns=random.choice((2, 10, 30)) * MILLISECOND_NS,
        restart_max_ns=random.choice((-1, 5 * MILLISECOND_NS, 50 * MILLISECOND_NS)),
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=random.choice((100, 200)) * MILLISECOND_NS,
    )


def stuck_links(options: Options, random: Random) -> Options:
    """Links are stuck in one direction while heartbeats pass; at the same time processes die."""
    return replace(
        options,
        fault_every_ns=random.choice((150, 400, 900)) * MILLISECOND_NS,
        fault_weights={
            "stuck-link": 6,
            "crash-process": random.choice((0, 2)),
            "crash-on-answer": random.choice((0, 1)),
            "leave": random.choice((0, 1)),
            "isolate": random.choice((0, 1)),
            "break-link": random.choice((0, 1)),
        },
        faults_overlap=random.random() < 0.5,
        think_ns=random.choice((1, 3, 10)) * MILLISECOND_NS,
        restart_max_ns=random.choice((-1, 20 * MILLISECOND_NS, 300 * MILLISECOND_NS)),
    )


def short_turns(options: Options, random: Random) -> Options:
    """Nodes handle a few frames per turn, and clients have many calls under way: everything has to wait."""
    work = random.choice((20, 60, 200))
    return replace(
        options,
        chaos_ns=SECOND_NS // 2,
        think_ns=random.choice((500, 1000, 3000)) * MICROSECOND_NS,
        pipeline=random.choice((8, 32)),
        work_per_turn=work,
        work_per_link=min(work, random.choice((20, 60))),
        unanswered_per_link=random.choice((1, 2, 8)),
        lane_bytes_max=random.choice((300, 1500, 20_000)),
    )


def rolling(options: Options, random: Random) -> Options:
    """Nodes are restarted cleanly, one by one or all at once. Each is back within `leave_ns`."""
    return replace(
        options,
        orderly=True,
        fault_every_ns=random.choice((100, 400, 1000)) * MILLISECOND_NS,
        fault_weights={"roll": 3, "roll-at-once": 1, "break-client": 1},
        faults_overlap=True,
        datagram_loss=random.choice((0.0, 0.02)),
        call_ns=10 * SECOND_NS,
        session_grace_ns=10 * SECOND_NS,
        restart_max_ns=random.choice((1, 20, 200, 1200)) * MILLISECOND_NS,
    )


PROFILES: Final[dict[str, tuple[int, Profile]]] = {
    "any": (8, any_mix),
    "contended": (2, contended),
    "broken links": (3, broken_links),
    "short pauses": (2, short_pauses),
    "restarts": (3, restarts),
    "installers cut": (2, installers_cut),
    "many checkpoints": (1, many_checkpoints),
    "stalls": (1, stalls),
    "skewed clocks": (2, skewed_clocks),
    "one slow node": (1, one_slow_node),
    "take-overs": (4, take_overs),
    "rivals": (3, rivals),
    "split": (6, split),
    "stuck links": (4, stuck_links),
    "rolling": (0, rolling),  # Drawn apart from the others, so that their seeds stay as they were.
}
"""By name: how often the profile is drawn, and the function that changes the options."""
