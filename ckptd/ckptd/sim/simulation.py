"""One simulation from seed to verdict: faults first (safety), then healing and convergence (liveness)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END
from ckpt_protocol.messages import Kind
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers import check_all, check_expirations, check_generated, check_not_done
from ckptd.sim.clock import WORLD_BEGAN_WALL_NS
from ckptd.sim.cluster import Cluster
from ckptd.sim.convergence import what_is_broken, what_is_missing
from ckptd.sim.options import Options
from ckptd.sim.trace import Trace
from ckptd.sim.worker import Worker
from ckptd.sim.world import StepsSpent, Violation

CONVERGENCE_NS: Final = 30 * SECOND_NS
"""Healed clusters converge within this, whatever came before."""

LOOK_EVERY_NS: Final = 5 * MILLISECOND_NS
FINAL_CALL_NS: Final = 20 * SECOND_NS
MARGIN_NS: Final = 5 * SECOND_NS

CLOCK_TOLERANCE_NS: Final = 20 * MILLISECOND_NS
"""How far a wall clock drifts from what it was at a node's start, at most."""


@dataclass(slots=True)
class Verdict:
    """What came of a simulation. `rule` is "" when nothing was broken."""

    options: Options
    rule: str = ""
    text: str = ""
    time_line: list[str] = field(default_factory=list)
    digest: str = ""
    events: int = 0
    calls: int = 0
    undecided: int = 0
    world_ns: int = 0
    stopped: bool = False

    @property
    def good(self) -> bool:
        """Nothing was broken."""
        return not self.rule


def simulate(options: Options, trace: Trace | None = None) -> Verdict:
    """Run the simulation of these options to its end or to the first rule that is broken."""
    trace = trace or Trace()
    cluster = Cluster(options, trace)
    verdict = Verdict(options)
    try:
        run_phases(cluster)
    except StepsSpent:
        verdict.stopped = True
    except Violation as violation:
        verdict.rule, verdict.text = violation.rule, violation.text
    if verdict.good:
        _check_history(cluster, verdict)
    verdict.time_line = cluster.world.time_line
    verdict.digest = trace.digest
    verdict.events = cluster.world.steps
    verdict.calls = sum(len(calls) for calls in cluster.workload.history.calls.values())
    verdict.world_ns = cluster.world.now_ns
    return verdict


def run_phases(cluster: Cluster) -> None:
    """Faults and work; healing; a last look by every client; the end of all sessions. Raises: Violation."""
    world, workload = cluster.world, cluster.workload
    cluster.start()
    workload.start()
    cluster.faults.begin()
    world.run_until(world.options.chaos_ns)
    cluster.network.quiet = True
    cluster.faults.heal_all()
    workload.resting = True
    settle(cluster, "convergence")
    last_look(cluster)
    settle(cluster, "convergence after the last look")
    _check_invariants(cluster)
    _end_sessions(cluster)
    _check_invariants(cluster)
    _check_expired(cluster)


def settle(cluster: Cluster, what: str, within_ns: int = CONVERGENCE_NS) -> None:
    """Let time pass until everything is as it should be. Raises: Violation."""
    wait_until(cluster, lambda: what_is_missing(cluster), what, within_ns)


def wait_until(
    cluster: Cluster, missing: Callable[[], str], what: str, within_ns: int = CONVERGENCE_NS
) -> None:
    """Let time pass until nothing is missing. Raises: Violation, with what still is."""
    until_ns = cluster.world.now_ns + within_ns
    while cluster.world.now_ns < until_ns:
        cluster.world.run_until(cluster.world.now_ns + LOOK_EVERY_NS)
        if not missing():
            cluster.world.say(f"{what}: reached")
            return
    raise Violation(what, f"not within {within_ns / SECOND_NS:g} s: {missing()}")


def last_look(cluster: Cluster) -> None:
    """Every client reads all that it has open: what was acknowledged must be there. Raises: Violation."""
    for worker in cluster.workload.workers:
        for opened in list(worker.opened.values()):
            worker.iterate(opened, FINAL_CALL_NS)
    wait_until(cluster, lambda: _clients_busy(cluster), "the last answers", FINAL_CALL_NS + MARGIN_NS)


def _clients_busy(cluster: Cluster) -> str:
    busy = [worker.client.name for worker in cluster.workload.workers if worker.client.pending]
    return f"{', '.join(busy)} wait" if busy else ""


def _end_sessions(cluster: Cluster) -> None:
    """Half of the clients detach, half just vanish: in time nothing is left but what is kept for ever."""
    options = cluster.options
    cluster.workload.closed = True
    for worker in cluster.workload.workers:
        _end_session(worker)
    retention_ns = max(
        (slot.retention_ns for slot in cluster.workload.slots if slot.retention_ns != SA_TIME_END), default=0
    )

    def missing() -> str:
        node = cluster.nodes()[0]
        if node.directory.sessions:
            return f"sessions {list(node.directory.sessions)} have not ended"
        left = [
            e.name for e in node.directory.checkpoints.values() if e.unlinked or e.retention_ns != SA_TIME_END
        ]
        return f"{left} are still there" if left else what_is_missing(cluster)

    wait_until(cluster, missing, "retention", options.session_grace_ns + retention_ns + MARGIN_NS)


def _end_session(worker: Worker) -> None:
    client = worker.client
    if client.over:
        return
    if worker.number % 2:
        client.request(Kind.DETACH, 0, [], lambda told: client.crash(False), FINAL_CALL_NS)
    else:
        client.crash(False)


def _check_invariants(cluster: Cluster) -> None:
    broken = what_is_broken(cluster)
    if broken:
        raise Violation("invariants at the end", "; ".join(broken))


def _wall_ns(world_ns: int) -> int:
    return WORLD_BEGAN_WALL_NS + world_ns


def _check_expired(cluster: Cluster) -> None:
    """Some seconds after everything has settled no section is left whose time has passed."""
    tolerance_ns = cluster.options.wall_error_ns + CLOCK_TOLERANCE_NS
    for node in cluster.nodes():
        for replica in node.replicas.values():
            if node.directory.checkpoints[replica.creation_id].active is None:
                continue
            for section_id, section in replica.sections.visible():
                if section.expiration_ns + tolerance_ns < _wall_ns(cluster.world.now_ns - SECOND_NS):
                    where = f"{section_id!r} of {replica.name!r} on {node.context.node_id}"
                    raise Violation("expiration", f"{where} is still there long after its time")


def _check_history(cluster: Cluster, verdict: Verdict) -> None:
    wrong: list[str] = []
    for creation_id, calls in cluster.workload.history.calls.items():
        subject = cluster.workload.subjects[creation_id]
        subject.losses_ns = cluster.watch.losses_ns.get(creation_id, [])
        findings = check_all(subject, calls)
        wrong.extend(findings.wrong)
        verdict.undecided += findings.undecided
        lossy = not subject.flags & SA_CKPT_WR_ALL_REPLICAS and bool(subject.losses_ns)
        wrong.extend(check_generated(calls, lossy))
        wrong.extend(check_not_done(calls))
        if subject.flags & SA_CKPT_WR_ALL_REPLICAS:
            wrong.extend(
                check_expirations(calls, _wall_ns, cluster.options.wall_error_ns + CLOCK_TOLERANCE_NS)
            )
    if wrong:
        verdict.rule, verdict.text = "history", "\n".join(wrong[:3])
