"""A checker that never fires is no checker: each rule of the core, switched off, is found by some seed."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from ckptd.core.active import ActiveReplica
from ckptd.core.clients import Clients
from ckptd.core.directory import Directory
from ckptd.core.heartbeat import Heartbeats
from ckptd.core.installation import Installation
from ckptd.core.log import UpdateLog
from ckptd.core.replica import Replica
from ckptd.core.section import SectionTable
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.options import FAULT_KINDS, Options, draw_options
from ckptd.sim.simulation import Verdict, simulate

SEEDS = range(1, 61)


def as_drawn(seed: int) -> Options:
    return draw_options(seed, 3)


def contended(seed: int) -> Options:
    """Clients that call without a pause, beside links between nodes that are now and then slow."""
    weights = tuple(int(kind in ("slow-link", "slow-node")) for kind in FAULT_KINDS)
    return replace(
        draw_options(seed, 3, clients=4),
        checkpoints=6,
        chaos_ns=SECOND_NS,
        fault_every_ns=50 * MILLISECOND_NS,
        fault_weights=weights,
        faults_overlap=True,
        think_ns=MILLISECOND_NS,
        delay_min_ns=50_000,
        delay_max_ns=200_000,
        datagram_loss=0.0,
    )


def broken_links(seed: int) -> Options:
    """The same, with connections that are reset all the time, so that calls are repeated elsewhere."""
    weights = tuple(int(kind in ("break-link", "break-client", "crash-process")) for kind in FAULT_KINDS)
    return replace(contended(seed), fault_every_ns=20 * MILLISECOND_NS, fault_weights=weights)


def short_pauses(seed: int) -> Options:
    """Nodes that stand still for longer than the replica time-out and shorter than the lease."""
    weights = tuple(int(kind in ("pause", "isolate")) for kind in FAULT_KINDS)
    return replace(
        draw_options(seed, 3, clients=4),
        fault_every_ns=200 * MILLISECOND_NS,
        fault_weights=weights,
        faults_overlap=False,
        think_ns=3 * MILLISECOND_NS,
        lease_ns=600 * MILLISECOND_NS,
        grace_ns=800 * MILLISECOND_NS,
        replica_timeout_ns=100 * MILLISECOND_NS,
        patience_ns=SECOND_NS,
    )


def first_found(draw: Callable[[int], Options] = as_drawn, seeds: Iterable[int] = SEEDS) -> Verdict:
    """The first seed's verdict that says that a rule is broken."""
    for seed in seeds:
        verdict = simulate(draw(seed))
        if not verdict.good:
            return verdict
    raise AssertionError("no seed found it")


def test_a_lease_that_never_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def renew(heartbeats: Heartbeats, view: object) -> None:
        heartbeats.context.lease_until_ns = 2**63

    monkeypatch.setattr(Heartbeats, "renew_lease", renew)
    assert first_found(short_pauses).rule in ("one active replica", "history", "same version, same sections")


def test_an_installer_that_does_not_wait_for_leases_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Installation, "_leases_end_ns", lambda installation, collection: 0)
    assert first_found(short_pauses).rule in ("one active replica", "history", "same version, same sections")


def test_a_retry_that_is_applied_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UpdateLog, "find_answer", lambda log, session, request, lowest: None)
    assert first_found(broken_links).rule == "history"


def test_an_answer_before_all_replicas_hold_the_update_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Callable[..., None] = ActiveReplica._send

    def send(active: ActiveReplica, update: object, before: object) -> None:
        asked = update.asked  # type: ignore[attr-defined]
        original(active, update, before)
        if asked is not None and active.replica.sync and active.required:
            active.answer(asked, update.answer)  # type: ignore[attr-defined]

    monkeypatch.setattr(ActiveReplica, "_send", send)
    assert first_found(contended).rule == "history"


def test_a_read_of_what_is_not_committed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Replica, "committed_section", lambda replica, section_id: replica.sections.sections.get(section_id)
    )
    monkeypatch.setattr(Replica, "overlay", lambda replica: {})
    monkeypatch.setattr(Replica, "pending_touches", lambda replica, section_ids: False)
    assert first_found(contended).rule == "history"


def test_an_update_that_is_half_applied_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SectionTable, "undo", lambda table, before: before.clear())
    assert first_found(contended).rule in ("history", "same version, same sections")


def test_a_session_that_never_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clients, "on_time", lambda clients: None)
    assert first_found().rule == "retention"


def test_a_retention_that_never_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Directory, "expires_ns", lambda directory, entry: None)
    assert first_found().rule == "retention"


def test_a_joining_replica_that_counts_at_once_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Directory._place

    def place(directory: Directory, number: int, creation_id: int, node_id: str) -> None:
        original(directory, number, creation_id, node_id)
        entry = directory.checkpoints.get(creation_id)
        if entry is not None and node_id in entry.replicas:
            entry.replicas[node_id] = True

    monkeypatch.setattr(Directory, "_place", place)
    assert not first_found().good
