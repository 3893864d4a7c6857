"""Shapes for the rules about leadership, and about refusals that are final (see `shapes`)."""

from dataclasses import replace
from random import Random

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.draw.options import Options


def leaders(options: Options, random: Random) -> Options:
    """Clients lead and wait to; nodes die, freeze and are cut off, some for longer than a ttl."""
    return replace(
        options,
        nodes=random.choice((1, 2, 3, 3, 3)),
        arbiter="",
        on_silent_peer="keep-active",
        witnesses=0,
        clients=2,
        leaders=4,
        checkpoints=2,
        kinds=random.choice(("all", "sync", "async")),
        chaos_ns=4 * SECOND_NS,
        fault_every_ns=random.choice((0, 300, 300, 300)) * MILLISECOND_NS,
        fault_weights={
            "crash-process": 3,
            "pause": 4,
            "isolate": 1,
            "cut-one-way": 1,
            "break-client": 3,
            "crash-client": 2,
        },
        faults_overlap=False,
        restart_max_ns=300 * MILLISECOND_NS,
        think_ns=3 * MILLISECOND_NS,
        pipeline=2,
        patience_ns=150 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
        session_grace_ns=random.choice((1, 10)) * SECOND_NS,
        repeats_refused=0.2,
        emphasis=random.choice(("put", "unlink", "")),
    )


def leaders_lost(options: Options, random: Random) -> Options:
    """Clients take up leaderships that only an active replica knows, and that replica is lost with them."""
    return replace(
        leaders(options, random),
        nodes=5,
        replicas=2,
        checkpoints=1,
        fault_every_ns=150 * MILLISECOND_NS,
        fault_weights={"lag-then-crash": 1},
        faults_overlap=False,
        restart_max_ns=100 * MILLISECOND_NS,
        emphasis="resign",
    )


def leaders_frozen(options: Options, random: Random) -> Options:
    """Leaders are frozen, some until their session has ended, and lose their connection meanwhile."""
    return replace(
        leaders(options, random),
        fault_every_ns=SECOND_NS,
        session_grace_ns=SECOND_NS,
        emphasis="freeze",
    )


def refusals_repeated(options: Options, random: Random) -> Options:
    """Clients send updates again that were refused for good, while active replicas are lost."""
    return replace(
        leaders_lost(options, random),
        leaders=random.choice((0, 3)),
        clients=4,
        think_ns=MILLISECOND_NS,
        pipeline=4,
        repeats_refused=0.7,
        emphasis="update-if",
    )
