"""The shape for the rules about resizes (see `shapes`)."""

from dataclasses import replace
from random import Random

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.draw.options import Options


def resizes(options: Options, random: Random) -> Options:
    """Clients resize a few checkpoints, while active replicas, coordinators and these clients die."""
    return replace(
        options,
        nodes=random.choice((2, 3, 3, 3)),
        arbiter="",
        on_silent_peer="keep-active",
        witnesses=0,
        clients=2,
        leaders=0,
        resizers=2,
        checkpoints=2,
        chaos_ns=3 * SECOND_NS,
        fault_every_ns=150 * MILLISECOND_NS,
        fault_weights={
            "crash-process": 3,
            "crash-amid-effects": 4,
            "lag-then-crash": 3,
            "crash-client": 4,
            "break-link": 1,
            "leave": 1,
        },
        faults_overlap=True,
        restart_max_ns=200 * MILLISECOND_NS,
        think_ns=3 * MILLISECOND_NS,
        pipeline=2,
        patience_ns=150 * MILLISECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
        replica_timeout_ns=200 * MILLISECOND_NS,
        emphasis="",
    )
