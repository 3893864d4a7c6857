"""Mistakes that the simulator found, each as the shortest scenario that shows it."""

import pytest
from tests.sim.scenario import Scenario, three_nodes, two_nodes

from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END
from ckpt_protocol.messages import Kind, Verb
from ckptd.core.node import Node
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.core.view import View
from ckptd.sim.checkers.history import Outcome
from ckptd.sim.clients.checkpoints import SimCheckpoint
from ckptd.sim.clients.sim_client import CallResult
from ckptd.sim.cluster import Cluster
from ckptd.sim.convergence import why_not_converged
from ckptd.sim.draw.calm_options import calm_options
from ckptd.sim.world.world import Violation


def test_a_restarted_sole_member_does_not_install_the_view_of_its_earlier_start() -> None:
    """It found its old view in the register, decided it again as it stood, and served in it with no data.

    The next checkpoints got the creation ids of those that were gone.
    """
    cluster = Cluster(calm_options(2, witnesses=1))
    cluster.faults.start("b")
    cluster.faults.start("w")
    cluster.world.run_until(3 * SECOND_NS)
    (node,) = cluster.nodes()
    assert node.view is not None and list(node.view.members) == ["b"]
    before = node.view.epoch
    cluster.faults.crash("b")
    cluster.faults.restart("b")
    cluster.world.run_until(8 * SECOND_NS)
    (node,) = cluster.nodes()
    assert node.view is not None and node.view.epoch > before
    installed = [line for line in cluster.world.time_line if "installed" in line]
    assert len(installed) == 2, installed


def test_two_voters_that_forgot_one_after_the_other_do_not_begin_again() -> None:
    """Seed 276: a lost its disk and was a member again; then c lost its own, while b was away.

    A view had named a, so it voted; but nothing of that view had come to its register. With c, which
    took that for a first start, it decided epoch 1 again.
    """
    scenario = three_nodes()
    scenario.write(b"kept")
    scenario.faults.lose_disk("a")
    scenario.faults.restart("a")
    scenario.converge()
    before = scenario.cluster.nodes()[0].context.epoch
    scenario.faults.power_off("b")
    scenario.faults.lose_disk("c")
    scenario.faults.crash("a")
    scenario.faults.restart("a")
    scenario.faults.restart("c")
    scenario.run_ms(5000)
    assert all(node.view is None or node.view.epoch > before for node in scenario.cluster.nodes())


def test_a_loss_that_a_coordinator_reported_as_its_last_words_was_a_loss() -> None:
    """Seed 4461: the oracles check a node after an event, and one that crashed amid it was not checked.

    It had answered that the checkpoint is gone, rightly: the only node that held it was dead.
    """
    scenario = three_nodes(replicas=1, at="c")  # Its first client is not at the coordinator.
    creation_id = scenario.handle(0).creation_id
    coordinator, (holder,) = scenario.coordinator, scenario.replicas()
    assert holder != coordinator
    scenario.write(b"kept by one")
    scenario.attach_to(0, coordinator)
    scenario.faults.crash(holder)
    read = scenario.begin_read()
    scenario.faults.crash_on_answer(coordinator)
    scenario.end(read)
    assert read.outcome == Outcome.NOT_DONE
    assert not scenario.cluster.hosts[coordinator].running
    scenario.faults.heal_all()
    scenario.converge()
    assert creation_id in scenario.cluster.oracles.views.lost


def test_a_late_answer_through_an_excluded_node_is_no_contact() -> None:
    """Seed 91303363: the session ended when its grace was over, counted from the view without its node.

    That node was paused with an answer on its way. It passed it on when it went on, a second later, and
    the checker counted the grace from there. Nobody in the view had heard of the client since.
    """
    scenario = three_nodes(
        patience_ns=9 * SECOND_NS,
        session_grace_ns=SECOND_NS,
        lease_ns=200 * MILLISECOND_NS,
        grace_ns=266 * MILLISECOND_NS,
    )
    active = scenario.active
    assert active is not None
    left_out = next(node_id for node_id in scenario.others(active) if node_id != scenario.coordinator)
    scenario.attach_to(0, left_out)
    node = scenario.node(active)
    replica = node.replicas[scenario.handle(0).creation_id]
    before = replica.committed_seq
    call = scenario.begin_write(b"done")
    scenario.until(lambda: replica.committed_seq > before)
    scenario.faults.pause(left_out)
    scenario.until(lambda: node.view is not None and left_out not in node.view.members)
    scenario.run_ms(700)
    scenario.faults.cut(scenario.faults.ways_around(left_out))
    scenario.faults.resume(left_out)
    began_ns = scenario.world.now_ns
    scenario.end(call)
    assert call.outcome == Outcome.OK
    session = scenario.worker(0).client.session
    scenario.until(lambda: session not in node.directory.sessions)
    assert scenario.world.now_ns - began_ns < 500 * MILLISECOND_NS
    scenario.faults.heal_all()
    scenario.converge()
    read = scenario.end(scenario.begin_read())
    assert read.outcome == Outcome.NOT_DONE, "its session has ended"


def test_a_checkpoint_whose_creation_others_still_have_to_finish_is_not_gone() -> None:
    """Its coordinator alone had done the OPEN when it died; the others had staged it, and finish it.

    The oracle took the coordinator's replica for the last one, and the next open for one of what is gone.
    """
    scenario = three_nodes()
    coordinator = scenario.coordinator
    others = scenario.others(coordinator)
    for client, node_id in enumerate(others):
        scenario.attach_to(client, node_id)
    checkpoint = SimCheckpoint(b"late", SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END, False)
    scenario.worker(0).open(checkpoint)
    scenario.until(lambda: all(scenario.node(node_id).replicator.in_flight is not None for node_id in others))
    scenario.faults.cut([(coordinator, node_id) for node_id in others])
    scenario.until(lambda: scenario.node(coordinator).directory.find(checkpoint.name) is not None)
    scenario.faults.crash(coordinator)
    scenario.faults.heal([(coordinator, node_id) for node_id in others])
    scenario.run_ms(0.1)
    scenario.worker(1).open(checkpoint)
    scenario.until(lambda: checkpoint.name in scenario.worker(1).handles)
    scenario.finish()


def test_what_an_installer_finished_before_any_node_ran_its_view_is_no_history() -> None:
    """Seed 7121256: it was held up behind that, and the others went on without what had come to it alone.

    Nobody had been told that it was done.
    """
    scenario = Scenario(5, SA_CKPT_WR_ALL_REPLICAS, directory_piece_bytes=1)
    first = scenario.coordinator
    installer = min(scenario.others(first))
    for node_id in scenario.others(first):
        if node_id != installer:
            scenario.faults.stall_link(10**10, (first, node_id))
    seq = scenario.node(installer).directory.seq
    results: list[CallResult] = []
    handle = scenario.handle(0)
    scenario.worker(0).request(Kind.RETENTION_SET, handle.number, [SECOND_NS], results.append)
    scenario.until(lambda: scenario.node(installer).replicator.in_flight is not None)
    scenario.faults.crash(first)
    scenario.until(lambda: scenario.node(installer).directory.seq == seq + 1)
    scenario.faults.pause(installer)
    others = [node_id for node_id in scenario.others(first) if node_id != installer]
    scenario.until(lambda: all(scenario.node(each).context.serving() for each in others))
    assert scenario.node(others[0]).directory.seq == seq
    assert not results
    scenario.faults.heal_all()
    scenario.converge()


def test_a_command_is_in_force_where_it_was_given_though_the_others_continue_with_the_dead_node() -> None:
    """Seed 7134958: the oracle forgot it with the next view beyond the cut; what followed was no fault."""
    scenario = three_nodes()
    faults, first = scenario.faults, scenario.coordinator
    cut_off, helper = scenario.others(first)

    def members(node_id: str) -> list[str]:
        view = scenario.node(node_id).view
        return list(view.members) if view is not None else []

    faults.cut(faults.ways_around(cut_off))
    scenario.until(lambda: sorted(members(first)) == sorted([first, helper]))
    scenario.cluster.operator.command(scenario.cluster.hosts[cut_off], Verb.ACCEPT_LOSS, first)
    faults.crash(helper)
    faults.restart(helper)
    scenario.until(lambda: members(first) == [first])
    faults.cut(faults.ways_around(first))
    faults.heal(faults.ways_between([cut_off], [helper]))
    scenario.until(lambda: sorted(members(cut_off)) == sorted([cut_off, helper]))
    assert members(first) == [first]
    faults.heal_all()
    scenario.converge()


def test_a_cluster_has_not_converged_while_a_fence_hook_may_still_cut_a_nodes_power() -> None:
    """Seed 7261247: the hook cut the power 2 ms after the cluster had converged.

    The final reads began in between. Their clients waited on links that had fallen silent.
    """
    scenario = three_nodes()
    scenario.converge()
    scenario.cluster.fencing.fence("a", "b")
    assert why_not_converged(scenario.cluster) == "a fence hook may still cut the power of b"
    scenario.run_ms(3000)
    assert "fence hook" not in why_not_converged(scenario.cluster)


def test_two_starts_above_the_incarnation_that_a_peer_knows_do_not_get_the_same_one() -> None:
    """Seed 7268250: b's clock had been ahead, and it lost its disk twice. Both times c knew the same.

    A node that had met the first took the second for that one, and ignored its heartbeats, whose stamps were
    lower: b was never admitted again.
    """
    scenario = three_nodes()
    host = scenario.cluster.hosts["b"]
    seen = []
    for _ in range(2):
        scenario.faults.lose_disk("b")
        scenario.cluster.begin_again("b", 10**9)
        scenario.run_ms(100)
        seen.append(host.incarnation)
    assert min(seen) > 10**9
    assert seen[0] != seen[1]
    scenario.converge()


def test_a_node_that_learned_of_a_death_acts_on_it_until_it_meets_a_later_incarnation() -> None:
    """Seed 7405975: the operator bootstrapped a after it had started again, and told b that a is lost.

    b had not met the later a. Both continued, as both commands say.
    """
    scenario = two_nodes()
    faults, cluster = scenario.faults, scenario.cluster
    faults.cut(faults.ways_around("a"))
    faults.crash("a")
    faults.restart("a")
    scenario.run_ms(100)
    cluster.operator.command(cluster.hosts["a"], Verb.BOOTSTRAP)
    scenario.run_ms(2000)
    cluster.operator.command(cluster.hosts["b"], Verb.ACCEPT_LOSS, "a")
    scenario.run_ms(2000)
    assert all(node.view is not None and len(node.view.members) == 1 for node in cluster.nodes())
    faults.heal_all()
    scenario.converge()


def test_a_checkpoint_whose_second_open_was_lost_is_closed_since_it_was_closed_before() -> None:
    """Seed 7416149: b opened it again while it served alone, and what b acknowledged alone was lost."""
    cluster = Cluster(calm_options(2))
    views, world = cluster.oracles.views, cluster.world
    for accepted in (True, False):
        creation_id = 7 + accepted
        views._note_open(creation_id, (1, 5), False)
        closed_ns = world.now_ns
        world.run_until(closed_ns + SECOND_NS)
        views._note_open(creation_id, (2, 6), True)
        views.accepted_ns = [world.now_ns] if accepted else []
        world.run_until(world.now_ns + SECOND_NS)
        views._note_open(creation_id, (2000, 5), False)
        assert views._closed[creation_id][1] == (closed_ns if accepted else world.now_ns)


def test_a_declared_death_is_retracted_after_the_directory_of_the_view_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seed 7422726: both nodes of a pair continued alone, and a, in the higher epoch, came back with nothing.

    The view that had b again began with a's empty directory, as the command to a had said.
    """
    cluster = Cluster(calm_options(2))
    views = cluster.oracles.views
    steps: list[tuple[str, int]] = []
    check, retract = views._check_directory, views._retract_death

    def check_directory(node_id: str, node: Node) -> None:
        steps.append(("check", node.context.epoch))
        check(node_id, node)

    def retract_death(by: str, view: View) -> None:
        steps.append(("retract", view.epoch))
        retract(by, view)

    monkeypatch.setattr(views, "_check_directory", check_directory)
    monkeypatch.setattr(views, "_retract_death", retract_death)
    cluster.start()
    cluster.world.run_until(SECOND_NS)
    retracted = [place for place, (step, _) in enumerate(steps) if step == "retract"]
    assert len(retracted) == 2
    assert all(steps[place - 1] == ("check", steps[place][1]) for place in retracted)


def test_what_a_node_takes_with_it_when_it_leaves_is_not_abandoned_by_the_other_one() -> None:
    """Seed 7530388: b continued a moment before the process of a ended, which had left with the last copy."""
    scenario = two_nodes()
    views = scenario.cluster.oracles.views
    node = scenario.node("a")
    views._newest = node.directory.installed_epoch, node.directory.seq
    with pytest.raises(Violation, match="started a new history although a has"):
        views._check_forgotten("b")
    node.liveness.own.left = True
    scenario.node("b").liveness.own.left = True
    views._check_forgotten("b")
