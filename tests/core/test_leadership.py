"""Leadership of a checkpoint: one program leads, and no late write gets through (ADR 32)."""

from typing import Any

import pytest
from tests.core.cluster import Cluster, nodes, three_nodes
from tests.core.leading import ALL_KINDS, SECOND_NS, TTL_NS, Program, leader_name

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.limits import LEADER_TTL_NS_MAX, WAITING_TO_LEAD_MAX
from ckpt_protocol.messages import EndReason, Kind, Op
from ckptd.core.replication.busy_replicas import OBSOLETE_TIMES_FACTOR

KINDS = pytest.mark.parametrize("flags", ALL_KINDS)


def two_programs(flags: int = SA_CKPT_WR_ALL_REPLICAS, **settings: Any) -> tuple[Cluster, Program, Program]:
    """A cluster in which "one", at node b, leads and "two", at node c, waits to."""
    cluster = three_nodes(**settings)
    one = Program(cluster, "b", "one", flags).lead()
    two = Program(cluster, "c", "two", flags)
    assert two.ask_to_lead().code == codes.OK
    return cluster, one, two


@KINDS
def test_while_a_program_leads_no_other_writes(flags: int) -> None:
    cluster, one, two = two_programs(flags)
    other = cluster.client("a").open_existing()
    refused = other.try_write(b"k", b"other")
    assert refused.code == codes.ACCESS
    assert "'one'" in refused.text
    assert two.table.try_write(b"k", b"two").code == codes.ACCESS
    assert one.table.try_write(b"k", b"without token").code == codes.ACCESS
    assert one.try_write(b"k", b"one").code == codes.OK
    assert other.read(b"k") == b"one"
    cluster.check()


@KINDS
def test_the_next_one_leads_when_the_leader_resigns(flags: int) -> None:
    cluster, one, two = two_programs(flags)
    assert one.resign().code == codes.OK
    two.take_up()
    assert two.token > one.token
    late = one.try_write(b"k", b"late")
    assert late.code == codes.ACCESS
    assert "'two'" in late.text
    assert two.try_write(b"k", b"two").code == codes.OK
    cluster.check()


@KINDS
def test_a_program_that_dies_is_followed_at_once(flags: int) -> None:
    cluster, one, two = two_programs(flags)
    assert one.try_write(b"k", b"one").code == codes.OK
    one.client.disconnect(process_dead=True)
    before_ns = cluster.now_ns
    two.take_up()
    assert cluster.now_ns - before_ns < SECOND_NS // 10
    assert two.table.read(b"k") == b"one"
    assert two.ask(whole=True).ended[-1].reason == EndReason.CLOSED
    cluster.check()


@KINDS
def test_a_program_that_does_not_renew_is_followed_after_its_ttl(flags: int) -> None:
    cluster, one, two = two_programs(flags)
    cluster.run(TTL_NS / 1e6 - 100)
    assert leader_name(two) == "one"
    two.take_up()
    assert two.ask(whole=True).ended[-1].reason == EndReason.NOT_RENEWED
    assert one.try_write(b"k", b"late").code == codes.ACCESS
    assert not one.renew()
    assert two.try_write(b"k", b"two").code == codes.OK
    cluster.check()


def test_a_renewal_and_a_write_make_the_ttl_begin_again() -> None:
    cluster, one, two = two_programs()
    one.run(2 * TTL_NS / 1e9)
    cluster.run(TTL_NS / 1e6 - 500)
    assert one.try_write(b"k", b"v").code == codes.OK
    cluster.run(TTL_NS / 1e6 - 500)
    assert leader_name(two) == "one"


@KINDS
def test_a_leadership_outlives_the_active_replica(flags: int) -> None:
    cluster = three_nodes()
    one = Program(cluster, "a", "one", flags)
    cluster.until(cluster.active)
    active = cluster.active()
    assert active is not None
    others = [node_id for node_id in "abc" if node_id != active]
    one.client.move(others[0])
    one.lead()
    two = Program(cluster, others[1], "two", flags)
    assert two.ask_to_lead().code == codes.OK
    assert one.try_write(b"k", b"1").code == codes.OK
    cluster.run(50)
    cluster.kill(active)
    cluster.until(lambda: cluster.active() not in (None, active))
    assert one.renew()
    answer = one.try_write(b"k", b"2")
    if flags != SA_CKPT_WR_ALL_REPLICAS:
        assert (answer.code, answer.payload != one.lineage) == (codes.ACCESS, True), "the newest may be lost"
        assert one.table.read(b"k") == b"1"
        one.lineage = answer.payload
        answer = one.try_write(b"k", b"2")
    assert answer.code == codes.OK
    assert two.table.try_write(b"k", b"two").code == codes.ACCESS
    assert one.resign().code == codes.OK
    two.take_up()
    leader = two.ask().leader
    assert leader is not None
    assert not leader.data_may_be_lost, "the leader before it knew, and wrote again"
    cluster.check()


@pytest.mark.parametrize("flags", ALL_KINDS)
def test_the_grant_of_a_new_leader_says_that_data_may_be_lost(flags: int) -> None:
    cluster, one, two = two_programs(flags)
    assert one.try_write(b"k", b"1").code == codes.OK
    active = cluster.active()
    assert active is not None
    if two.client.node_id == active:
        two.client.move(next(node_id for node_id in "abc" if node_id != active))
    cluster.kill(active)
    one.client.disconnect(process_dead=True)
    two.take_up()
    leader = two.ask().leader
    assert leader is not None
    assert leader.data_may_be_lost == (flags != SA_CKPT_WR_ALL_REPLICAS)
    assert two.try_write(b"k", b"2").code == codes.OK
    cluster.check()


@KINDS
def test_a_refused_write_is_never_carried_out_later(flags: int) -> None:
    """A duplicate of it comes when nobody leads any more, to the next active replica."""
    cluster = three_nodes()
    one = Program(cluster, "a", "one", flags).lead()
    client = cluster.client("b")
    other = client.open_existing()
    call = other.begin_write(b"k", b"other")
    assert client.end(call).code == codes.ACCESS
    assert one.resign().code == codes.OK
    cluster.until(cluster.active)
    active = cluster.active()
    assert active is not None
    cluster.kill(active)
    call.answers.clear()
    client.move(next(node_id for node_id in "bc" if node_id != active))
    assert client.end(call).code == codes.ACCESS
    assert b"k" not in other.read_all()
    cluster.check()


def test_programs_lead_in_the_order_in_which_they_came() -> None:
    cluster = three_nodes()
    programs = [Program(cluster, "abc"[number % 3], str(number)) for number in range(6)]
    for program in programs:
        assert program.ask_to_lead().code == codes.OK
    assert [program.ask().place for program in programs] == list(range(6))
    tokens = []
    for program in programs:
        program.take_up()
        tokens.append(program.token)
        assert program.resign().code == codes.OK
    assert tokens == sorted(set(tokens))
    assert leader_name(programs[0]) == ""
    ended = programs[0].ask(whole=True).ended
    assert [(each.program.name, each.reason) for each in ended] == [
        (str(number), EndReason.RESIGNED) for number in range(6)
    ]


def test_a_leader_may_name_its_successor() -> None:
    cluster, one, two = two_programs()
    three = Program(cluster, "a", "three")
    assert three.ask_to_lead().code == codes.OK
    assert one.resign("four").code == codes.NOT_EXIST
    assert leader_name(one) == "one"
    assert one.resign("three").code == codes.OK
    three.take_up()
    assert two.ask().place == 1


def test_a_program_that_leaves_the_queue_is_not_granted() -> None:
    cluster, one, two = two_programs()
    three = Program(cluster, "a", "three")
    assert three.ask_to_lead().code == codes.OK
    assert two.resign().code == codes.OK
    assert two.ask().place is None
    assert one.resign().code == codes.OK
    three.take_up()
    assert two.resign().code == codes.OK, "it neither leads nor waits: nothing to do"


def test_a_waiting_program_that_dies_is_passed_over() -> None:
    cluster, one, two = two_programs()
    three = Program(cluster, "a", "three")
    assert three.ask_to_lead().code == codes.OK
    two.client.disconnect(process_dead=True)
    cluster.run(100)
    assert one.resign().code == codes.OK
    three.take_up()
    assert [each.program.name for each in three.ask(whole=True).ended] == ["one"]


def test_a_grant_that_is_not_taken_up_is_passed_on_after_its_ttl() -> None:
    cluster, one, _ = two_programs()
    three = Program(cluster, "a", "three")
    assert three.ask_to_lead().code == codes.OK
    assert one.resign().code == codes.OK
    three.take_up()
    assert [each.program.name for each in three.ask(whole=True).ended] == ["one", "two"]


def test_a_leader_with_a_short_ttl_ends_in_time_after_one_with_a_long_ttl() -> None:
    """Its active replica was looked at again when the *former* leader's ttl would have ended."""
    cluster = three_nodes()
    one = Program(cluster, "a", "one").lead(ttl_ns=600 * SECOND_NS)
    cluster.run(1000)
    silent, three = Program(cluster, "b", "silent"), Program(cluster, "c", "three")
    assert silent.ask_to_lead().code == codes.OK
    assert three.ask_to_lead().code == codes.OK
    assert one.resign().code == codes.OK
    before_ns = cluster.now_ns
    three.take_up()
    assert cluster.now_ns - before_ns < TTL_NS + SECOND_NS
    cluster.check()


def test_times_at_which_leaders_are_looked_at_do_not_add_up() -> None:
    cluster = three_nodes()
    one, two = Program(cluster, "a", "one"), Program(cluster, "b", "two")
    for turn in range(20):
        leader = one if turn % 2 else two
        leader.lead(ttl_ns=(600 - turn) * SECOND_NS)
        cluster.run(500)
        assert leader.resign().code == codes.OK
    active = cluster.active()
    assert active is not None
    busy = cluster.node(active)._replicas.busy
    assert len(busy.quiet) <= 1
    assert len(busy._quiet_until) <= OBSOLETE_TIMES_FACTOR


def test_to_lead_again_with_one_handle_changes_nothing() -> None:
    cluster, one, two = two_programs()
    assert one.ask_to_lead().code == codes.OK
    assert two.ask_to_lead().code == codes.OK
    assert (one.ask().place, two.ask().place) == (0, 1)
    assert len(one.ask(whole=True).waiting) == 1
    cluster.check()


def test_a_leader_that_closes_its_handle_leads_no_more() -> None:
    _, one, two = two_programs()
    one.table.close()
    two.take_up()


def test_a_leadership_that_is_not_exclusive_gives_a_token_only() -> None:
    cluster = three_nodes()
    one = Program(cluster, "a", "one").lead(exclusive=False)
    two = Program(cluster, "b", "two")
    assert two.table.try_write(b"k", b"two").code == codes.OK
    assert one.try_write(b"k", b"one").code == codes.OK
    assert two.client.unlink().code == codes.OK
    assert one.resign().code == codes.OK
    assert one.try_write(b"k", b"late").code == codes.ACCESS


def test_an_operator_ends_a_leadership() -> None:
    cluster, one, two = two_programs()
    other = cluster.client("a").open_existing()
    assert other.try_update([Op.REVOKE, one.token[0], one.token[1] + 1]).code == codes.NOT_EXIST
    assert other.try_update([Op.REVOKE, *one.token]).code == codes.OK
    two.take_up()
    assert two.ask(whole=True).ended[-1].reason == EndReason.REVOKED
    assert one.try_write(b"k", b"late").code == codes.ACCESS


# -- unlink


def test_only_the_leader_unlinks() -> None:
    cluster, one, _ = two_programs()
    refused = cluster.client("a").unlink()
    assert refused.code == codes.ACCESS
    assert "'one'" in refused.text
    assert one.client.unlink().code == codes.ACCESS
    assert one.client.call(Kind.UNLINK, 0, [b"x", 0, one.secret]).code == codes.OK
    assert one.try_write(b"k", b"v").code == codes.OK, "it still leads what it has open"


def test_a_late_unlink_of_a_former_leader_frees_nothing() -> None:
    cluster, one, two = two_programs()
    assert one.resign().code == codes.OK
    late = [b"x", 0, one.secret]
    two.take_up()
    refused = one.client.call(Kind.UNLINK, 0, late)
    assert refused.code == codes.ACCESS and "'two'" in refused.text
    assert two.resign().code == codes.OK
    refused = one.client.call(Kind.UNLINK, 0, late)
    assert refused.code == codes.ACCESS and "nobody leads" in refused.text
    assert cluster.client("a").unlink().code == codes.OK


def test_after_a_resignation_any_client_may_unlink() -> None:
    cluster = three_nodes()
    other = cluster.client("b")
    one = Program(cluster, "a", "one").lead()
    assert one.resign().code == codes.OK
    assert other.unlink().code == codes.OK


def test_tokens_grow_when_a_name_is_created_again() -> None:
    cluster = three_nodes()
    one = Program(cluster, "a", "one").lead()
    old = (one.table.creation_id, *one.token)
    assert one.client.call(Kind.UNLINK, 0, [b"x", 0, one.secret]).code == codes.OK
    two = Program(cluster, "b", "two").lead()
    assert (two.table.creation_id, *two.token) > old
    assert one.try_write(b"k", b"old").code == codes.OK, "of the unlinked checkpoint, which is another one"
    assert b"k" not in two.table.read_all()


# -- silence


@KINDS
def test_a_silent_node_ends_no_leadership(flags: int) -> None:
    """The leader's node freezes for longer than the ttl; the leader moves and goes on."""
    cluster, one, two = two_programs(flags)
    cluster.pause("b")
    cluster.until(lambda: "b" not in (cluster.node("a").view or cluster.node("c").view).members)
    one.client.move("a")
    assert one.renew()
    cluster.resume("b")
    one.run(2)
    assert leader_name(two) == "one"
    cluster.check()


def test_a_pause_of_the_active_replicas_node_ends_no_leadership() -> None:
    """A single node is frozen for longer than the ttl. It could not hear the leader in that time."""
    cluster = nodes("a")
    one = Program(cluster, "a", "one").lead()
    two = Program(cluster, "a", "two")
    assert two.ask_to_lead().code == codes.OK
    cluster.pause("a")
    cluster.run(3 * TTL_NS / 1e6)
    cluster.resume("a")
    cluster.run(200)
    assert one.renew()
    assert leader_name(two) == "one"


def test_an_outage_of_the_cluster_ends_no_leadership() -> None:
    """The node that serves loses both others for longer than the ttl: nobody can renew in that time."""
    cluster, one, two = two_programs()
    for node_id in "ac":
        cluster.pause(node_id)
    cluster.run(3 * TTL_NS / 1e6)
    for node_id in "ac":
        cluster.resume(node_id)
    cluster.until(lambda: cluster.serving("b"))
    assert one.renew()
    assert leader_name(two) == "one"
    cluster.check()


# -- what must not be answered early


@pytest.mark.parametrize("flags", ALL_KINDS[1:])
def test_no_answer_shows_a_leadership_before_every_replica_has_it(flags: int) -> None:
    cluster = three_nodes()
    one = Program(cluster, "a", "one", flags)
    cluster.until(cluster.active)
    active = cluster.active()
    assert active is not None
    held = next(node_id for node_id in "abc" if node_id != active)
    cluster.hold(active, held)
    lead = one.table.begin(Kind.UPDATE, one.lead_op())
    ask = one.table.begin(Kind.LEADER, one.table.handle, 0, 0, False)
    cluster.run(100)
    assert not lead.answers
    assert not ask.answers
    cluster.release(active, held)
    assert one.client.end(lead).code == codes.OK
    one.take_up()


def test_a_replica_that_joins_has_the_leadership_too() -> None:
    cluster, one, two = two_programs()
    cluster.kill("a")
    assert one.try_write(b"k", b"1").code == codes.OK
    cluster.restart("a")
    cluster.settle()
    assert cluster.replica("a").sections.leadership == cluster.replica("b").sections.leadership
    active = cluster.active()
    assert active is not None
    cluster.kill(active)
    one.client.move("a")
    assert one.renew()
    assert one.try_write(b"k", b"2").code == codes.OK
    assert two.table.creation_id == one.table.creation_id


def test_a_waiting_request_is_answered_when_its_time_is_over() -> None:
    _, one, two = two_programs()
    version = two.ask().version
    one.renew()
    answer = two.wait_for_change(version)
    assert answer.version >= version
    hot = two.begin_wait(two.ask().version)
    one.try_write(b"k", b"v")
    one.cluster.run(50)
    assert not hot.answers, "a write wakes nobody who waits to lead"


# -- bad input


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({3: 0}, codes.INVALID_PARAM),
        ({3: SECOND_NS}, codes.INVALID_PARAM),  # Too short for a fail-over.
        ({3: LEADER_TTL_NS_MAX + 1}, codes.INVALID_PARAM),
        ({3: -1}, codes.INVALID_PARAM),
        ({2: 0}, codes.INVALID_PARAM),
        ({2: -1}, codes.INVALID_PARAM),
        ({1: 99}, codes.BAD_HANDLE),
        ({1: -1}, codes.BAD_HANDLE),
        ({6: "n" * 65}, codes.INVALID_PARAM),
        ({7: "h" * 256}, codes.INVALID_PARAM),
        ({8: -1}, codes.INVALID_PARAM),
        ({8: 2**40}, codes.INVALID_PARAM),
        ({6: 5}, codes.INVALID_PARAM),
        ({3: "5"}, codes.INVALID_PARAM),
    ],
)
def test_a_wrong_request_to_lead_is_one_clear_error(change: dict[int, Any], code: int) -> None:
    cluster = three_nodes()
    one = Program(cluster, "a", "one")
    op = one.lead_op()
    for index, value in change.items():
        op[index] = value
    assert one.table.try_update(op).code == code
    assert leader_name(one) == ""
    assert one.table.try_write(b"k", b"v").code == codes.OK


def test_a_short_ttl_is_allowed_if_a_fail_over_may_end_the_leadership() -> None:
    one = Program(three_nodes(), "a", "one")
    one.lead(ttl_ns=SECOND_NS, allow_loss=True)
    assert one.try_write(b"k", b"v").code == codes.OK


def test_a_handle_for_reading_does_not_lead_but_asks() -> None:
    cluster, one, _ = two_programs()
    reader = cluster.client("a").open_existing(mode=SA_CKPT_CHECKPOINT_READ)
    op = [Op.LEAD, reader.handle, 5, TTL_NS, True, False, "reader", "host", 7]
    assert reader.try_update(op).code == codes.ACCESS
    writer = reader.client.open_existing()
    refused = writer.try_update(op)
    assert refused.code == codes.ACCESS
    answer = reader.call(Kind.LEADER, 0, 0, 0, True)
    assert answer.payload[1][6][:3] == ["one", "host", 7]
    assert one.renew()


@pytest.mark.parametrize(
    "ops",
    [
        [[Op.TOKEN, 1, 1, 1, 0]],
        [[Op.TOKEN, 1, 1, 1, 0], [Op.PUT, b"k", b"v", None]],
        [[Op.PUT, b"k", b"v", None], [Op.RESIGN, 1, None]],
        [[Op.RESIGN, 1, None], [Op.PUT, b"k", b"v", None]],
        [[Op.PUT, b"k", b"v", None], [Op.REVOKE, 1, 1]],
        [[Op.LEADERSHIP, b""]],
    ],
)
def test_what_is_in_a_wrong_place_is_refused(ops: list[Any]) -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    assert table.try_update(*ops).code == codes.INVALID_PARAM
    assert table.read_all() == {}
    cluster.check()


def test_the_queue_has_a_limit() -> None:
    cluster = three_nodes(opens_per_session_max=WAITING_TO_LEAD_MAX + 10)
    one = Program(cluster, "a", "one").lead()
    client = cluster.client("b")
    handles = [client.open_existing().handle for _ in range(WAITING_TO_LEAD_MAX + 1)]
    long = "n" * 64, "h" * 255
    codes_of = [
        one.client.cluster
        and client.call(
            Kind.UPDATE, handle, [[Op.LEAD, handle, 2**64 - 1, TTL_NS, True, False, *long, 2**32 - 1]]
        ).code
        for handle in handles
    ]
    assert codes_of == [codes.OK] * WAITING_TO_LEAD_MAX + [codes.NO_RESOURCES]
    assert len(one.ask(whole=True).waiting) == WAITING_TO_LEAD_MAX
    cluster.check()


def test_a_collocated_checkpoint_without_an_active_replica_has_no_leader() -> None:
    cluster = three_nodes()
    flags = SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED
    one = Program(cluster, "a", "one", flags)
    assert one.ask_to_lead().code == codes.NOT_EXIST
    assert one.table.call(Kind.LEADER, 0, 0, 0, False).code == codes.NOT_EXIST
    assert one.table.set_active().code == codes.OK
    one.lead()
    assert one.try_write(b"k", b"v").code == codes.OK


def test_a_handle_that_leads_again_unlinks_with_its_new_secret() -> None:
    one = Program(three_nodes(), "a", "one").lead()
    resigned = one.table.begin(Kind.UPDATE, [Op.RESIGN, one.table.handle, None])
    one.secret += 1
    again = one.table.begin(Kind.UPDATE, one.lead_op())
    assert (one.client.end(resigned).code, one.client.end(again).code) == (codes.OK, codes.OK)
    one.take_up()
    assert one.client.call(Kind.UNLINK, 0, [b"x", 0, one.secret]).code == codes.OK


@KINDS
def test_a_duplicate_of_a_request_to_lead_waits_like_the_first(flags: int) -> None:
    cluster = three_nodes()
    one = Program(cluster, "a", "one", flags)
    cluster.until(cluster.active)
    active = cluster.active()
    assert active is not None
    held = next(node_id for node_id in "abc" if node_id != active)
    cluster.run(50)
    cluster.hold(active, held)
    lead = one.table.begin(Kind.UPDATE, one.lead_op())
    cluster.run(50)
    one.client.send(lead)
    cluster.run(50)
    assert not lead.answers
    cluster.release(active, held)
    cluster.run(50)
    assert {answer.code for answer in lead.answers} == {codes.OK}
    assert all(len(answer.payload) == 1 for answer in lead.answers)


@KINDS
def test_a_request_to_lead_that_was_not_answered_is_answered_by_the_next_active_replica(flags: int) -> None:
    cluster = three_nodes()
    one = Program(cluster, "a", "one", flags)
    cluster.until(cluster.active)
    cluster.run(50)
    active = cluster.active()
    assert active is not None
    others = [node_id for node_id in "abc" if node_id != active]
    one.client.move(others[0])
    cluster.hold(active, others[1])
    lead = one.table.begin(Kind.UPDATE, one.lead_op())
    cluster.run(50)
    cluster.kill(active)
    cluster.until(lambda: lead.answers)
    assert (lead.code, len(lead.answers[0].payload)) == (codes.OK, 1)
    one.take_up()
    assert len(one.ask(whole=True).waiting) == 0
    cluster.check()


def test_a_duplicate_of_a_resignation_waits_for_the_directory_like_the_first() -> None:
    cluster = three_nodes()
    one = Program(cluster, "b", "one").lead()
    coordinator = cluster.node("a").view
    assert coordinator is not None
    active = cluster.active()
    assert active is not None
    held = next(node_id for node_id in "abc" if node_id not in (active, coordinator.coordinator))
    cluster.hold(coordinator.coordinator, held)  # So no operation of the directory is done.
    resign = one.table.begin(Kind.UPDATE, [Op.RESIGN, one.table.handle, None])
    cluster.run(30)
    one.client.send(resign)
    cluster.run(30)
    assert not resign.answers
    cluster.release(coordinator.coordinator, held)
    assert one.client.end(resign).code == codes.OK
    assert cluster.client("a").unlink().code == codes.OK


def test_a_request_to_lead_that_was_ordered_is_not_withdrawn() -> None:
    """TRY_AGAIN would say that it is not in the queue."""
    cluster = three_nodes()
    one = Program(cluster, "a", "one")
    cluster.until(cluster.active)
    cluster.run(50)
    cluster.hold("a", "b")
    cluster.hold("a", "c")
    lead = one.table.begin(Kind.UPDATE, one.lead_op())
    cluster.run(20)
    one.client.begin(Kind.PING, 0, [lead.number])
    cluster.run(20)
    assert not lead.answers
    for node_id in "bc":
        cluster.release("a", node_id)
    assert one.client.end(lead).code == codes.OK
    one.take_up()


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_end_of_a_sessions_grace_does_not_end_its_leadership_before_the_ttl(exclusive: bool) -> None:
    """A leader that reaches no node counts its ttl. It does not know that its session has ended."""
    cluster = three_nodes(session_grace_ns=SECOND_NS)
    one = Program(cluster, "b", "one").lead(exclusive=exclusive)
    two = Program(cluster, "c", "two")
    assert two.ask_to_lead().code == codes.OK
    one.client.disconnect()
    cluster.run(TTL_NS / 1e6 - 100)
    assert one.client.session not in cluster.node("a").directory.sessions
    assert leader_name(two) == "one"
    two.take_up()
    assert two.ask(whole=True).ended[-1].reason == EndReason.NOT_RENEWED
    cluster.check()


def test_a_session_that_ends_with_its_node_does_not_end_its_leadership_before_the_ttl() -> None:
    cluster = three_nodes(session_grace_ns=SECOND_NS)
    one = Program(cluster, "b", "one").lead()
    two = Program(cluster, "c", "two")
    assert two.ask_to_lead().code == codes.OK
    cluster.kill("b")
    cluster.run(TTL_NS / 1e6 - 100)
    assert one.client.session not in cluster.node("c").directory.sessions
    assert leader_name(two) == "one"
    two.take_up()
    cluster.check()


def test_a_detached_session_ends_its_leadership_at_once() -> None:
    cluster, one, two = two_programs()
    one.client.call(Kind.DETACH)
    before_ns = cluster.now_ns
    two.take_up()
    assert cluster.now_ns - before_ns < SECOND_NS // 10


def test_a_session_that_came_back_after_its_process_counted_as_dead_is_not_dead_later() -> None:
    cluster = three_nodes(session_grace_ns=SECOND_NS)
    one = Program(cluster, "b", "one").lead()
    two = Program(cluster, "c", "two")
    assert two.ask_to_lead().code == codes.OK
    link = one.client.link
    cluster.hold("b", "a")
    one.client.begin_attach("b")
    cluster.lose_client(link, process_dead=True)  # One of two processes that share the session.
    cluster.release("b", "a")
    cluster.run(100)
    assert one.renew()
    one.client.disconnect()
    cluster.run(2000)
    assert leader_name(two) == "one"
