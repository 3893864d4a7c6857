"""One simulation from seed to verdict: first faults (safety), then healing and convergence (liveness)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.messages import Kind
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers.checkers import (
    Subject,
    check_all,
    check_expirations,
    check_generated,
    check_not_done,
    without_outranked,
)
from ckptd.sim.checkers.history import Call
from ckptd.sim.checkers.leaderships import (
    check_first_reads,
    check_leaderships,
    check_refusals,
    check_unlinks,
)
from ckptd.sim.checkers.open_close import check_open_close
from ckptd.sim.checkers.weak_order import check_weak_order
from ckptd.sim.clients.client_driver import ClientDriver
from ckptd.sim.cluster import Cluster
from ckptd.sim.convergence import violations, why_not_converged
from ckptd.sim.draw.options import Options
from ckptd.sim.trace import Trace
from ckptd.sim.world.clock import PPM, WORLD_BEGAN_WALL_NS
from ckptd.sim.world.world import StepsSpent, Violation

CONVERGENCE_NS: Final = 30 * SECOND_NS
"""A healed cluster must converge within this time, whatever happened before."""

OPERATOR_NS: Final = 10 * SECOND_NS
"""If the cluster has not converged after this time, an operator reads what the nodes wait for."""

CHECK_EVERY_NS: Final = 5 * MILLISECOND_NS
FINAL_CALL_NS: Final = 20 * SECOND_NS
MARGIN_NS: Final = 5 * SECOND_NS

CLOCK_TOLERANCE_NS: Final = 20 * MILLISECOND_NS
CLOCK_READ_NS: Final = 10 * SECOND_NS
"""A node's reading of the wall clock is at most this old; since then its own clock has drifted."""


@dataclass(slots=True)
class Verdict:
    """The outcome of a simulation. `rule` is "" if no rule was broken."""

    options: Options
    rule: str = ""
    text: str = ""
    time_line: list[str] = field(default_factory=list)
    digest: str = ""
    events: int = 0
    calls: int = 0
    histories: int = 0
    undecided: int = 0
    world_ns: int = 0
    stopped: bool = False

    @property
    def good(self) -> bool:
        """True if no rule was broken."""
        return not self.rule


def simulate(options: Options, trace: Trace | None = None) -> Verdict:
    """Run the simulation of these options to its end or to the first broken rule."""
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
    """Run all phases. Raises: Violation.

    1. Faults come while clients work.
    2. Everything heals, and the cluster converges.
    3. Every client reads everything once more, and the cluster converges again.
    4. All sessions end.
    """
    world, workload = cluster.world, cluster.workload
    cluster.start()
    cluster.clients.start()
    cluster.chaos.begin()
    if world.options.hostile:
        cluster.hostile_client.begin()
    if world.options.impostors:
        cluster.impostors.begin()
    if world.options.operator:
        cluster.operator.begin()
    world.run_until(world.options.chaos_ns)
    cluster.make_reliable()
    cluster.chaos.end()
    cluster.hostile_client.end()
    cluster.impostors.end()
    cluster.operator.end()
    cluster.faults.heal_all()
    workload.resting = True
    converge(cluster, "convergence")
    final_read(cluster)
    converge(cluster, "convergence after the final read")
    _check_invariants(cluster)
    _end_sessions(cluster)
    _check_invariants(cluster)
    _check_expired(cluster)


def converge(cluster: Cluster, what: str, within_ns: int = CONVERGENCE_NS) -> None:
    """Let time pass until the cluster has converged. An operator acts once. Raises: Violation."""
    world = cluster.world
    operator_acts_ns = world.now_ns + OPERATOR_NS

    def missing() -> str:
        nonlocal operator_acts_ns
        if world.now_ns >= operator_acts_ns:
            operator_acts_ns += within_ns
            cluster.operator.act_once()
        return why_not_converged(cluster)

    wait_until(cluster, missing, what, within_ns)


def wait_until(
    cluster: Cluster, missing: Callable[[], str], what: str, within_ns: int = CONVERGENCE_NS
) -> None:
    """Let time pass until nothing is missing. Raises: Violation, with what is still missing."""
    until_ns = cluster.world.now_ns + within_ns
    while cluster.world.now_ns < until_ns:
        cluster.world.run_until(cluster.world.now_ns + CHECK_EVERY_NS)
        if not missing():
            cluster.world.say(f"{what}: reached")
            return
    raise Violation(what, f"not within {within_ns / SECOND_NS:g} s: {missing()}")


def final_read(cluster: Cluster) -> None:
    """Have every client read all that it has open: what was acknowledged must be there. Raises: Violation."""
    for driver in cluster.clients.drivers:
        for handle in list(driver.handles.values()):
            driver.iterate(handle, FINAL_CALL_NS)
        for number in cluster.workload.open_close.uncertain(driver.client.session):
            driver.close_handle(number, may_be_closed=True, call_ns=FINAL_CALL_NS)
    wait_until(cluster, lambda: _clients_busy(cluster), "the last answers", FINAL_CALL_NS + MARGIN_NS)
    tracking_clients = [each for driver in cluster.clients.drivers for each in driver.tracking_clients]
    for tracking_client in tracking_clients:
        tracking_client.final_check()

    def unfinished() -> str:
        wait = [
            f"{each.client.name} ({each.handle.checkpoint.name.decode()})"
            for each in tracking_clients
            if not each.finished
        ]
        return f"the tracking clients {', '.join(wait)} still read" if wait else ""

    wait_until(cluster, unfinished, "the final read of the tracking clients", FINAL_CALL_NS)
    for driver in cluster.clients.drivers:
        driver.mark_session_uncertain()
        for handle in list(driver.handles.values()):
            driver.status(handle, final=True, call_ns=FINAL_CALL_NS)
    wait_until(cluster, lambda: _clients_busy(cluster), "the last answers", FINAL_CALL_NS + MARGIN_NS)


def _clients_busy(cluster: Cluster) -> str:
    busy = [driver.client.name for driver in cluster.clients.drivers if driver.client.busy]
    return f"{', '.join(busy)} still wait" if busy else ""


def _end_sessions(cluster: Cluster) -> None:
    """Have half of the clients, or all, detach, and let the others vanish.

    After some time only what must be kept may be left.
    """
    options = cluster.options
    cluster.workload.closed = True
    all_detach = cluster.world.chance(0.4)
    for driver in cluster.clients.drivers:
        _end_session(driver, all_detach or driver.number % 2 == 1)
    if options.nodes > 1 and cluster.world.chance(0.5):
        _lose_coordinators(cluster)
    retention_ns = max(
        (
            checkpoint.retention_ns
            for checkpoint in cluster.workload.checkpoints
            if checkpoint.retention_ns != SA_TIME_END
        ),
        default=0,
    )

    # A hostile client may have set any retention for its own.
    names = {checkpoint.name for checkpoint in cluster.workload.checkpoints}

    def missing() -> str:
        nodes = cluster.nodes()
        if not nodes:
            return "no node is running"
        node = nodes[0]
        if node.directory.sessions:
            return f"sessions {list(node.directory.sessions)} have not ended"
        remaining = [
            entry.name
            for entry in node.directory.checkpoints.values()
            if (entry.unlinked or entry.retention_ns != SA_TIME_END) and entry.name in names
        ]
        return f"{remaining} are still there" if remaining else why_not_converged(cluster)

    wait_until(cluster, missing, "retention", options.session_grace_ns + retention_ns + 2 * MARGIN_NS)


def _lose_coordinators(cluster: Cluster) -> None:
    """Kill two coordinators in turn while retentions and graces run: their successors must complete those.

    One of them may stay away until those are over.
    """
    world, faults = cluster.world, cluster.faults

    def lose(away_ns: int) -> None:
        views = [node.view for node in cluster.nodes() if node.view is not None]
        coordinator = max(views, key=lambda view: view.epoch).coordinator if views else ""
        if len(cluster.nodes()) == cluster.options.nodes and coordinator:
            faults.crash(coordinator)
            world.after(away_ns, lambda: faults.restart(coordinator))

    short_ns = world.between(0, 300 * MILLISECOND_NS)
    long_ns = cluster.options.session_grace_ns + MARGIN_NS
    world.after(world.between(0, 400 * MILLISECOND_NS), lambda: lose(short_ns))
    options = cluster.options
    # A pair may have to wait until the lost node returns. So may other clusters while a voter abstains: a
    # witness that is not yet in the view, or a voter that lost its disk (seed 7126074).
    pair = options.nodes + options.witnesses == 2 and options.arbiter != "etcd"
    voting = all(
        set(options.witness_ids) <= set(node.view.witnesses) for node in cluster.nodes() if node.view
    )
    forgot = any(
        host.core is not None and host.core.liveness.own.amnesiac for host in cluster.machines.values()
    )
    last_ns = long_ns if world.chance(0.3) and not pair and voting and not forgot else short_ns
    world.after(world.between(400 * MILLISECOND_NS, 1500 * MILLISECOND_NS), lambda: lose(last_ns))


def _end_session(driver: ClientDriver, detach: bool) -> None:
    client = driver.client
    if client.over:
        return
    if detach:
        client.request(Kind.DETACH, 0, [], lambda result: client.crash(False), FINAL_CALL_NS)
    else:
        client.crash(False)


def _check_invariants(cluster: Cluster) -> None:
    broken = violations(cluster)
    if broken:
        raise Violation("invariants at the end", "; ".join(broken))


def _wall_ns(world_ns: int) -> int:
    return WORLD_BEGAN_WALL_NS + world_ns


def _clock_tolerance_ns(options: Options) -> int:
    """Return how far a node's reading of the time may be from the true time."""
    drift_ns = CLOCK_READ_NS * options.skew_ppm // PPM
    return options.wall_error_ns + CLOCK_TOLERANCE_NS + drift_ns


def _check_expired(cluster: Cluster) -> None:
    """Check, some seconds after everything has settled, that no section is left that should have expired.

    An active replica that took over just now, after two coordinators were lost, gets one more second (seed
    7184919).
    """
    if _expired(cluster):
        wait_until(cluster, lambda: _expired(cluster), "expiration", SECOND_NS)


def _expired(cluster: Cluster) -> str:
    """Describe a section that expired more than a second ago; "" if there is none."""
    tolerance_ns = _clock_tolerance_ns(cluster.options)
    for node in cluster.nodes():
        for replica in node.replicas.values():
            entry = node.directory.checkpoints.get(replica.creation_id)
            if entry is None or entry.active is None or node.context.node_id not in entry.replicas:
                continue  # (The last condition: a replica that is about to be retired.)
            for section_id, section in replica.sections.items_sorted():
                if section.expiration_ns + tolerance_ns < _wall_ns(cluster.world.now_ns - SECOND_NS):
                    where = f"{section_id!r} of {replica.name!r} on {node.context.node_id}"
                    return f"{where} still exists long after its expiration"
    return ""


def _check_history(cluster: Cluster, verdict: Verdict) -> None:
    wrong: list[str] = []
    for creation_id, calls in cluster.workload.history.calls.items():
        subject = cluster.workload.subjects[creation_id]
        calls = without_outranked(calls, cluster.oracles.views.outranked)
        sync = bool(subject.flags & SA_CKPT_WR_ALL_REPLICAS)
        subject.losses_ns = cluster.oracles.replicas.losses_of(creation_id, sync)
        subject.fork_ns = cluster.oracles.replicas.fork_of(creation_id)
        subject.left_behind_ns = cluster.oracles.replicas.left_behind_of(creation_id)
        findings = check_all(subject, calls)
        wrong.extend(findings.wrong)
        verdict.histories += findings.histories
        verdict.undecided += findings.undecided
        if subject.flags & SA_CKPT_WR_ACTIVE_REPLICA_WEAK and subject.fork_ns is None:
            wrong.extend(check_weak_order(calls, subject.losses_ns))
        if subject.fork_ns is None and not cluster.oracles.views.outranked:
            wrong.extend(_check_leaderships(cluster, subject, calls))
            wrong.extend(_check_limits(cluster, subject))
        wrong.extend(check_generated(calls, subject.losses_ns))
        wrong.extend(check_not_done(calls, subject.losses_ns))
        if not subject.losses_ns:
            wrong.extend(check_expirations(calls, _wall_ns, _clock_tolerance_ns(cluster.options)))
    wrong.extend(check_refusals(cluster.workload.leaderships, cluster.workload.is_lost))
    if not cluster.oracles.views.history_lost:
        tolerance_ns = 10 * MILLISECOND_NS
        skew = cluster.options.skew_ppm / PPM
        wrong.extend(
            check_open_close(cluster.workload.open_close, cluster.workload.is_lost, skew, tolerance_ns)
        )
        wrong.extend(_check_unlinks(cluster))
    if wrong:
        verdict.rule, verdict.text = "history", "\n".join(wrong[:3])


def _check_leaderships(cluster: Cluster, subject: Subject, calls: Sequence[Call]) -> list[str]:
    history = cluster.workload.leaderships
    if cluster.workload.is_lost(subject.creation_id):
        return []
    wrong = check_leaderships(history, calls, subject.creation_id)
    if subject.flags & SA_CKPT_WR_ALL_REPLICAS and not subject.losses_ns:
        reads = [each for each in history.first_reads if each[0].creation_id == subject.creation_id]
        wrong.extend(check_first_reads(reads, calls, subject.section_ids))
    return wrong


def _check_limits(cluster: Cluster, subject: Subject) -> list[str]:
    known = cluster.workload.limits.by_creation.get(subject.creation_id)
    if known is None or cluster.workload.is_lost(subject.creation_id):
        return []
    return [f"limits of {subject.name.decode()} ({subject.creation_id:x}): {text}" for text in known.wrong]


def _check_unlinks(cluster: Cluster) -> list[str]:
    history, open_close = cluster.workload.leaderships, cluster.workload.open_close
    wrong: list[str] = []
    for checkpoint in cluster.workload.checkpoints:
        opens = [call for call in open_close.opens if call.name == checkpoint.name]
        unlinks = [call for call in open_close.unlinks if call.name == checkpoint.name]
        wrong.extend(check_unlinks(history, opens, unlinks))
    return wrong
