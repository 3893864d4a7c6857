"""Leadership where something goes wrong: slow nodes, lost messages, hostile peers, and much at a time."""

import pytest
from tests.core.client import Call
from tests.core.cluster import Cluster, nodes, three_nodes, two_nodes
from tests.core.leading import ALL_KINDS, SECOND_NS, TTL_NS, Program, leader_name

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ACTIVE_REPLICA
from ckpt_protocol.framing import Frame, FrameDecoder
from ckpt_protocol.limits import WAITING_TO_LEAD_MAX
from ckpt_protocol.messages import DIRECTORY_ID, REPLICATE_ROUTE, EndReason, Kind, Op
from ckptd.core.directory.directory import DirectoryOp
from ckptd.core.directory.entries import NamedLeader
from ckptd.core.events import ClientReceived, PeerReceived
from ckptd.core.settings import FeatureLevel

KINDS = pytest.mark.parametrize("flags", ALL_KINDS)


def active_of(cluster: Cluster) -> str:
    cluster.until(cluster.active)
    active = cluster.active()
    assert active is not None
    return active


def coordinator_of(cluster: Cluster) -> str:
    view = cluster.running()[0].view
    assert view is not None
    return view.coordinator


def named(cluster: Cluster) -> NamedLeader | None:
    """Return the leader that the coordinator's directory names."""
    entry = cluster.node(coordinator_of(cluster)).directory.find(b"x")
    assert entry is not None
    return entry.leader


def test_a_dead_leader_is_followed_though_the_node_is_slow() -> None:
    """It handles events only every 150 ms, so that every look at the leader comes late."""
    cluster = nodes("a")
    Program(cluster, "a", "one").lead()
    two = Program(cluster, "a", "two")
    assert two.ask_to_lead().code == codes.OK
    for _ in range(3 * TTL_NS // 150_000_000):
        cluster.pause("a")
        cluster.run(150)
        cluster.resume("a")
        cluster.run(1)
    assert leader_name(two) == "two"


def test_a_leader_costs_nothing_between_its_renewals() -> None:
    """No heartbeat looks at it: a node with 1,000 of them spent 11 ms of each 25 ms on that."""
    cluster = three_nodes()
    one = Program(cluster, "b", "one").lead()
    two = Program(cluster, "c", "two")
    assert two.ask_to_lead().code == codes.OK
    cluster.run(100)
    busy = cluster.node(active_of(cluster))._replicas.busy
    assert not busy.by_id
    one.run(2 * TTL_NS / 1e9)
    assert not busy.by_id
    assert len(busy.quiet) == 1
    two.take_up()
    two.run(TTL_NS / 1e9)
    assert leader_name(one) == "two"


def test_a_checkpoint_that_is_gone_is_not_kept_for_its_leader() -> None:
    cluster = three_nodes()
    one = Program(cluster, "b", "one").lead(ttl_ns=3_600 * SECOND_NS)
    cluster.run(100)
    busy = cluster.node(active_of(cluster))._replicas.busy
    assert one.client.call(Kind.UNLINK, 0, [b"x", 0, one.secret]).code == codes.OK
    one.table.close()
    cluster.run(100)
    assert not busy.quiet
    assert not busy.by_id


# -- resignations, and what the directory names


@KINDS
def test_a_resignation_is_answered_after_a_fail_over_only_once_the_directory_knows(flags: int) -> None:
    cluster = three_nodes()
    one = Program(cluster, "b", "one", flags)
    active, coordinator = active_of(cluster), coordinator_of(cluster)
    assert active != coordinator
    one.client.move(next(node_id for node_id in "abc" if node_id not in (active, coordinator)))
    one.lead()
    cluster.run(50)
    cluster.hold(active, coordinator)  # So the directory does not learn of it.
    resign = one.table.begin(Kind.UPDATE, [Op.RESIGN, one.table.handle, None])
    cluster.run(20)
    assert not resign.answers
    cluster.kill(active)
    cluster.until(lambda: resign.answers)
    assert resign.code == codes.OK
    assert named(cluster) is None
    cluster.check()


@KINDS
def test_a_program_that_leaves_at_once_is_not_named_afterwards(flags: int) -> None:
    """It is answered after what was asked of the directory for its sake is done, and undone."""
    cluster = three_nodes()
    one = Program(cluster, "b", "one", flags)
    assert active_of(cluster) != coordinator_of(cluster)
    one.table.begin(Kind.UPDATE, one.lead_op())
    resign = one.table.begin(Kind.UPDATE, [Op.RESIGN, one.table.handle, None])
    cluster.until(lambda: resign.answers)
    assert resign.code == codes.OK
    for _ in range(100):
        assert named(cluster) is None
        cluster.run(0.1)
    assert cluster.client("a").unlink().code == codes.OK
    cluster.check()


def test_the_next_in_the_queue_that_leaves_is_answered_once_it_is_not_named() -> None:
    """The directory names it already, but it does not lead yet."""
    cluster = three_nodes()
    one = Program(cluster, "b", "one").lead()
    two = Program(cluster, "c", "two")
    assert two.ask_to_lead().code == codes.OK
    one.table.begin(Kind.UPDATE, [Op.RESIGN, one.table.handle, None])
    resign = two.table.begin(Kind.UPDATE, [Op.RESIGN, two.table.handle, None])
    cluster.until(lambda: resign.answers)
    assert resign.code == codes.OK
    for _ in range(100):
        assert named(cluster) is None
        cluster.run(0.1)


def test_a_resignation_of_one_that_was_followed_already_waits_for_the_directory_too() -> None:
    cluster = three_nodes()
    one = Program(cluster, "b", "one").lead()
    coordinator, active = coordinator_of(cluster), active_of(cluster)
    held = next(node_id for node_id in "abc" if node_id not in (active, coordinator))
    cluster.run(TTL_NS / 1e6)
    cluster.hold(coordinator, held)  # So no operation of the directory is done.
    cluster.run(100)
    resign = one.table.begin(Kind.UPDATE, [Op.RESIGN, one.table.handle, None])
    cluster.run(50)
    assert not resign.answers
    assert named(cluster) is not None
    cluster.release(coordinator, held)
    assert one.client.end(resign).code == codes.OK
    assert named(cluster) is None


def test_the_directory_is_not_changed_again_for_what_was_asked_twice() -> None:
    """While a change of the directory is pending, the next leader is asked for again and again."""
    cluster = three_nodes()
    one = Program(cluster, "b", "one")
    coordinator, active = coordinator_of(cluster), active_of(cluster)
    held = next(node_id for node_id in "abc" if node_id not in (active, coordinator))
    cluster.hold(coordinator, held)
    lead = one.table.begin(Kind.UPDATE, one.lead_op())
    cluster.run(300)
    replicator = cluster.node(coordinator).replicator
    assert replicator.count_internal(DirectoryOp.LEADER) == 2
    before = replicator.directory.seq
    cluster.release(coordinator, held)
    assert one.client.end(lead).code == codes.OK
    one.take_up()
    cluster.run(100)
    assert cluster.node(coordinator).directory.seq == before + 1


def test_a_name_can_be_unlinked_though_its_leader_and_its_active_replica_are_lost() -> None:
    cluster = three_nodes()
    flags = SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED
    one = Program(cluster, "b", "one", flags)
    assert one.table.set_active().code == codes.OK
    one.lead()
    client = cluster.client("c")
    client.open_existing()
    cluster.settle()
    cluster.kill("b")
    cluster.run(5_000)
    assert client.unlink().code == codes.ACCESS, "it may still lead, by its own clock"
    cluster.run(10_000)
    assert client.unlink().code == codes.OK


# -- what is refused although it was done


def test_a_resignation_that_was_done_is_not_refused_because_much_waits() -> None:
    cluster = three_nodes(requests_waiting_max=20)
    one = Program(cluster, "b", "one", SA_CKPT_WR_ACTIVE_REPLICA).lead()
    coordinator, active = coordinator_of(cluster), active_of(cluster)
    one.client.move(active)
    third = next(node_id for node_id in "abc" if node_id not in (active, coordinator))
    cluster.hold(coordinator, third)  # The directory waits,
    resign = one.table.begin(Kind.UPDATE, [Op.RESIGN, one.table.handle, None])
    cluster.run(20)
    cluster.hold(third, active)  # and then the commits, too.
    for _ in range(40):
        one.table.begin_write(b"k", b"v")
        one.table.begin(Kind.SYNCHRONIZE)
    cluster.run(5)
    cluster.release(coordinator, third)
    cluster.run(20)
    assert resign.code != codes.TRY_AGAIN
    cluster.release(third, active)
    assert one.client.end(resign).code == codes.OK


def test_a_request_to_lead_is_refused_before_anything_is_done_if_too_much_waits() -> None:
    cluster = three_nodes(requests_waiting_max=5)
    one = Program(cluster, "b", "one", SA_CKPT_WR_ACTIVE_REPLICA)
    active = active_of(cluster)
    one.client.move(active)
    for node_id in "abc":
        if node_id != active:
            cluster.hold(node_id, active)
    leads = [one.table.begin(Kind.UPDATE, one.lead_op()) for _ in range(20)]
    cluster.run(5)
    assert [lead.code for lead in leads].count(codes.TRY_AGAIN) == 15
    for node_id in "abc":
        if node_id != active:
            cluster.release(node_id, active)
    cluster.run(50)
    assert [lead.code for lead in leads].count(codes.OK) == 5


def test_resignations_that_wait_for_the_directory_are_limited_too() -> None:
    cluster = three_nodes(requests_waiting_max=5)
    one = Program(cluster, "b", "one", SA_CKPT_WR_ACTIVE_REPLICA).lead()
    coordinator, active = coordinator_of(cluster), active_of(cluster)
    one.client.move(active)
    held = next(node_id for node_id in "abc" if node_id not in (active, coordinator))
    cluster.hold(coordinator, held)
    resigns = [one.table.begin(Kind.UPDATE, [Op.RESIGN, one.table.handle, None]) for _ in range(20)]
    cluster.run(20)
    assert [resign.code for resign in resigns].count(codes.TRY_AGAIN) == 15
    cluster.release(coordinator, held)
    cluster.run(50)
    assert [resign.code for resign in resigns].count(codes.OK) == 5


# -- hostile peers, and work


def test_a_peer_that_sends_a_token_without_a_change_stops_no_node() -> None:
    cluster = three_nodes()
    one = Program(cluster, "b", "one").lead()
    active = active_of(cluster)
    other = next(node_id for node_id in "abc" if node_id != active)
    cluster.run(50)
    node, seq = cluster.node(other), cluster.replica(other).log.seq
    route = REPLICATE_ROUTE.pack(one.client.session, 999, 0, 0, 0, node.context.epoch)
    body = route + pack_body([[Op.TOKEN, 1, 1, 1, 0]])
    frame = Frame(Kind.REPLICATE, one.table.creation_id, node.context.epoch, seq + 1, body)
    cluster.deliver(other, PeerReceived(active, [frame]))
    cluster.run(100)
    assert cluster.hosts[other].running
    assert cluster.replica(other).log.seq == seq
    assert one.try_write(b"k", b"v").code == codes.OK


def test_a_successor_with_too_long_a_name_is_refused() -> None:
    """Its text, with every character escaped, would be ten times as long as a request may be."""
    one = Program(three_nodes(), "b", "one").lead()
    assert one.resign("n" * 65).code == codes.INVALID_PARAM
    assert one.resign("\0" * 1_000_000).code == codes.INVALID_PARAM
    assert one.resign("n" * 64).code == codes.NOT_EXIST
    assert leader_name(one) == "one"


def work_of(cluster: Cluster, node_id: str, program: Program, *ops: list[object]) -> int:
    """Return the work that a node counts for one update of a client that is attached to it."""
    client, handle, body = program.client, program.table.handle, pack_body(list(ops))
    number = max(client.calls) + 1_000
    client.calls[number] = Call(number, Kind.UPDATE, handle, body)
    frame = Frame(Kind.UPDATE, number, handle, number, body)
    context = cluster.node(node_id).context
    context.work = 0
    cluster.carry_out(
        node_id, cluster.node(node_id).handle(ClientReceived(client.link, [frame]), cluster.now_ns)
    )
    return context.work


def test_an_update_that_the_leader_excludes_counts_as_work() -> None:
    cluster = three_nodes()
    one = Program(cluster, "b", "one", SA_CKPT_WR_ACTIVE_REPLICA).lead()
    active = active_of(cluster)
    two = Program(cluster, active, "two", SA_CKPT_WR_ACTIVE_REPLICA)
    ops: list[list[object]] = [[Op.DELETE, b"%d" % number] for number in range(10_000)]
    assert work_of(cluster, active, two, *ops) > 20_000
    stale = [Op.TOKEN, 1, 1, 1, 0]
    assert work_of(cluster, active, two, *ops[1:], stale) > 20_000
    assert leader_name(one) == "one"


def test_a_change_of_a_long_queue_counts_as_work() -> None:
    cluster = three_nodes(opens_per_session_max=WAITING_TO_LEAD_MAX + 10)
    one = Program(cluster, "b", "one", SA_CKPT_WR_ACTIVE_REPLICA).lead()
    active = active_of(cluster)
    two = Program(cluster, active, "two", SA_CKPT_WR_ACTIVE_REPLICA)
    long = "n" * 64, "h" * 255
    for _ in range(WAITING_TO_LEAD_MAX - 1):
        handle = two.client.open_existing().handle
        op = [Op.LEAD, handle, 5, TTL_NS, True, False, *long, 7]
        assert two.client.call(Kind.UPDATE, handle, [op]).code == codes.OK
    assert work_of(cluster, active, two, two.lead_op()) > 400
    assert len(one.ask(whole=True).waiting) == WAITING_TO_LEAD_MAX


# -- older nodes


def ends_sent(cluster: Cluster) -> list[list[object]]:
    """Return the ends of sessions that nodes sent to each other, proposed or ordered."""
    ends: list[list[object]] = []
    for _, _, data in cluster.sent:
        for frame in FrameDecoder().feed(data):
            if frame.kind == Kind.ASK:
                ends.append(unpack_body(frame.body))
            elif frame.kind == Kind.REPLICATE and frame.a == DIRECTORY_ID:
                ends.append(unpack_body(frame.body)[0])
    return [op for op in ends if op[0] == DirectoryOp.END]


@pytest.mark.parametrize("detaches", [False, True])
def test_an_older_node_is_sent_the_end_of_a_session_as_it_knows_it(detaches: bool) -> None:
    """It does not match one with more fields, and the session would live on there."""
    cluster = three_nodes(feature_level=FeatureLevel.BASE)
    client = cluster.client("b")
    if detaches:
        assert client.call(Kind.DETACH).code == codes.OK
    else:
        client.disconnect(process_dead=True)
    cluster.run(100)
    ends = ends_sent(cluster)
    assert ends
    assert {len(op) for op in ends} == {3}


@pytest.mark.parametrize("retention_ns", [SECOND_NS, 0])
@pytest.mark.parametrize("unlinks", [False, True])
def test_retention_does_not_end_while_a_leader_may_live(retention_ns: int, unlinks: bool) -> None:
    """The name would be created again, and another program would lead while the first one counts its ttl."""
    cluster = three_nodes(session_grace_ns=SECOND_NS)
    one = Program(cluster, "b", "one")
    assert one.table.call(Kind.RETENTION_SET, retention_ns).code == codes.OK
    one.lead(ttl_ns=6 * SECOND_NS)
    if unlinks:
        assert one.client.call(Kind.UNLINK, 0, [b"x", 0, one.secret]).code == codes.OK
    one.client.disconnect()
    cluster.run(3_000)
    assert one.client.session not in cluster.node("a").directory.sessions
    assert one.table.creation_id in cluster.node("a").directory.checkpoints
    if not unlinks:
        two = Program(cluster, "c", "two")
        assert two.table.creation_id == one.table.creation_id
        assert leader_name(two) == "one"
        two.table.close()
    cluster.run(6_000)
    assert one.table.creation_id not in cluster.node("a").directory.checkpoints
    cluster.check()


def test_a_checkpoint_that_nothing_serves_does_not_wait_for_its_leader() -> None:
    cluster = three_nodes()
    flags = SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED
    one = Program(cluster, "b", "one", flags)
    assert one.table.call(Kind.RETENTION_SET, SECOND_NS).code == codes.OK
    assert one.table.set_active().code == codes.OK
    one.lead(ttl_ns=60 * SECOND_NS)
    other = cluster.client("c").open_existing()
    cluster.settle()
    cluster.kill("b")
    other.close()
    cluster.run(20_000)
    assert one.table.creation_id not in cluster.node("a").directory.checkpoints
    cluster.check()


def test_the_last_request_to_lead_of_a_handle_counts() -> None:
    """With another secret it was once answered OK, and then each of the program's writes was refused."""
    cluster = three_nodes()
    one = Program(cluster, "a", "one").lead()
    two, three = Program(cluster, "b", "two"), Program(cluster, "c", "three")
    for program in (two, three):
        assert program.ask_to_lead().code == codes.OK
    for program in (two, one):
        program.secret += 1
        assert program.ask_to_lead().code == codes.OK
    assert one.try_write(b"k", b"late").code == codes.ACCESS
    for program in (three, two, one):
        program.take_up()
        assert program.try_write(b"k", program.name.encode()).code == codes.OK
        assert program is one or program.resign().code == codes.OK
    ended = [(each.program.name, each.reason) for each in one.ask(whole=True).ended]
    assert ended == [(name, EndReason.RESIGNED) for name in ("one", "three", "two")]
    assert one.client.call(Kind.UNLINK, 0, [b"x", 0, one.secret]).code == codes.OK
    cluster.check()


def test_a_duplicate_of_a_former_request_to_lead_changes_nothing() -> None:
    """It came to another node, and is on its way to the active replica when the next one is answered."""
    cluster = three_nodes()
    one, two = Program(cluster, "a", "one"), Program(cluster, "b", "two").lead()
    former = one.table.begin(Kind.UPDATE, one.lead_op())
    assert one.client.end(former).code == codes.OK
    one.secret += 1
    assert one.ask_to_lead().code == codes.OK
    one.client.send(former)
    cluster.run(100)
    assert two.resign().code == codes.OK
    one.take_up()
    one.client.send(former)
    cluster.run(100)
    assert one.renew() and one.try_write(b"k", b"v").code == codes.OK


def test_a_handle_that_waits_may_ask_again_while_the_queue_is_full() -> None:
    cluster = nodes("a")
    one = Program(cluster, "a", "one").lead()
    waiting = [Program(cluster, "a", str(number)) for number in range(WAITING_TO_LEAD_MAX)]
    for program in waiting:
        assert program.ask_to_lead().code == codes.OK
    waiting[0].secret += 1
    assert waiting[0].ask_to_lead().code == codes.OK
    assert waiting[0].ask().place == WAITING_TO_LEAD_MAX
    one.secret += 1
    assert one.ask_to_lead().code == codes.NO_RESOURCES
    assert one.renew(), "what is refused changes nothing"


def continue_alone(cluster: Cluster) -> None:
    """a, which coordinates, continues without b."""
    cluster.cut("a", "b")
    cluster.until(lambda: cluster.serving("a") and cluster.node("a").context.epoch > 1)


def lose_what_was_done_alone(cluster: Cluster, *programs: Program) -> None:
    """a is lost, with all that it acknowledged alone, and b continues; the programs go there."""
    cluster.kill("a", silent=True)
    cluster.until(lambda: cluster.fences)
    cluster.end_fence("b")
    cluster.until(lambda: cluster.serving("b"))
    assert cluster.node("b").context.counters["losses_accepted"] == 1
    for program in programs:
        program.client.move("b")


@KINDS
def test_a_program_whose_resignation_was_lost_leads_again(flags: int) -> None:
    """Seed 9501277: b had it as the leader with its former secret, and refused its next LEAD for good."""
    cluster = two_nodes(on_silent_peer="fence")
    one = Program(cluster, "a", "one", flags).lead()
    continue_alone(cluster)
    assert one.resign().code == codes.OK
    lose_what_was_done_alone(cluster, one)
    one.secret += 1
    one.lead()
    assert one.try_write(b"k", b"v").code == codes.OK
    assert one.client.call(Kind.UNLINK, 0, [b"x", 0, one.secret]).code == codes.OK


@KINDS
def test_programs_whose_later_leaderships_were_lost_lead_again(flags: int) -> None:
    """Seed 9500217: b knew the leader with the secret of an earlier leadership, and so those who waited."""
    cluster = two_nodes(on_silent_peer="fence")
    one, two = Program(cluster, "a", "one", flags).lead(), Program(cluster, "a", "two", flags)
    assert two.ask_to_lead().code == codes.OK
    continue_alone(cluster)
    assert one.resign().code == codes.OK
    two.take_up()
    assert two.resign().code == codes.OK
    two.secret += 1
    two.lead()
    lose_what_was_done_alone(cluster, one, two)
    assert not two.renew()
    assert two.try_write(b"k", b"late").code == codes.ACCESS
    for program in (two, one):
        program.secret += 1
        assert program.ask_to_lead().code == codes.OK
    two.take_up()
    assert two.try_write(b"k", b"v").code == codes.OK
    assert two.resign().code == codes.OK
    one.take_up()
    assert one.try_write(b"k", b"w").code == codes.OK
