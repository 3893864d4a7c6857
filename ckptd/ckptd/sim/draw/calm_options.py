"""Options for a test that says itself what goes wrong: a fast network, and the daemon's default times."""

from dataclasses import replace
from typing import Any

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.draw.draw_options import draw_options
from ckptd.sim.draw.options import Options


def calm_options(nodes: int, **changes: Any) -> Options:
    """Return options without faults; `changes` are options with other values."""
    options = replace(
        draw_options(0),
        nodes=nodes,
        clients=2,
        leaders=0,
        resizers=0,
        repeats_refused=0.0,
        checkpoints=1,
        fault_every_ns=0,
        fault_weights={},
        profile="calm",
        arbiter="",
        on_silent_peer="keep-active",
        witnesses=0,
        disk_slow=0.0,
        slow_factor=1,
        delay_min_ns=50_000,
        delay_max_ns=200_000,
        datagram_loss=0.0,
        datagram_doubled=0.0,
        skew_ppm=50,
        wall_error_ns=0,
        call_ns=10 * SECOND_NS,
        patience_ns=400 * MILLISECOND_NS,
        replicas=3,
        heartbeat_ns=25 * MILLISECOND_NS,
        lease_ns=600 * MILLISECOND_NS,
        grace_ns=800 * MILLISECOND_NS,
        replica_timeout_ns=600 * MILLISECOND_NS,
        session_grace_ns=10 * SECOND_NS,
        hold_ns=SECOND_NS,
        weak_batch_ns=5 * MILLISECOND_NS,
        weak_batch_bytes=256 * 1024,
        chunk_bytes=128 * 1024,
        chunks_in_flight=4,
        log_bytes_max=4 * 1024 * 1024,
    )
    return replace(options, **changes)
