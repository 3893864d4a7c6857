"""Moves that a session makes by itself, to the active replica's node."""

import pytest
from tests.client.dialogue import NONCE, SECOND_NS, A, B, C, Dialogue, outcome

from ckpt_client.session.address import Address, parse_address, parse_addresses
from ckpt_client.session.affinity import (
    AVOID_NS,
    FOLLOW_UPDATES,
    OTHER_NODE_PENALTY,
    REST_NS,
    ActiveAffinity,
    wants_affinity,
)
from ckpt_client.session.attachment import SessionState
from ckpt_client.session.call import Call
from ckpt_client.session.endpoints import Endpoints
from ckpt_client.session.planned_move import MOVE_QUIESCE_NS, MoveState, PlannedMove
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.framing import Frame, decode_datagram
from ckpt_protocol.handshake import Acceptor, Identity
from ckpt_protocol.messages import Kind, answer_error, answer_ok, encode_answer

MEMBERS = {"a": [A], "b": [B], "c": [C]}
PLACES = {"": 0, "a": 1, "b": 2, "c": 3}


class Travel(Dialogue):
    """A session at node a of a, b and c, in epoch 1."""

    def __init__(self, addresses: str = f"{A},{B},{C}", follows: bool = True, key: bytes = b"") -> None:
        super().__init__(addresses, key, key, follows)
        self.epoch = 1
        self.members = dict(MEMBERS)
        first = self.ask(Kind.READ)
        self.connect()
        (attach,) = self.sent()
        self.answer(attach.a, self.attached_at("a"))
        (read,) = self.requests()
        self.answer(read.a)
        assert first.done

    def attached_at(self, node_id: str) -> bytes:
        """The body of a good answer to ATTACH."""
        return answer_ok([node_id, [[name, urls] for name, urls in sorted(self.members.items())]])

    def updates(self, count: int, active: str) -> list[Call]:
        """So many updates, each answered by way of `active`."""
        calls = []
        for _ in range(count):
            calls.append(self.update())
            for frame in self.requests():
                if frame.kind == Kind.DESCRIBE:
                    rows = [[name, 1, 1, urls] for name, urls in sorted(self.members.items())]
                    described = {"epoch": self.epoch, "members": rows}
                    self.receive(encode_answer(frame.a, self.epoch, 0, answer_ok(described)))
                else:
                    self.receive(encode_answer(frame.a, self.epoch, PLACES[active], answer_ok()))
            assert outcome(calls[-1]) == codes.OK
        return calls

    def moving(self) -> PlannedMove:
        """The move that the session wants."""
        assert self.session.move is not None
        return self.session.move

    def greet(self, node_id: str) -> Frame:
        """The second link is up and greeted by `node_id`; the ATTACH that came, nothing else being asked."""
        move = self.moving()
        move.open(NONCE)
        acceptor = Acceptor(Identity("test", self.service.key, node_id, 1), NONCE)
        move.receive(acceptor.receive(decode_datagram(move.outgoing.pop())))
        self.session.advance_move(self.now_ns)
        frames = [decode_datagram(frame) for frame in move.outgoing]
        move.outgoing.clear()
        return frames[-1]

    def finish(self) -> bool:
        """Tell the session that its move is over."""
        return self.session.finish_move(self.moving(), self.now_ns)

    def go(self, node_id: str) -> Frame:
        """The whole move; the ATTACH that was sent."""
        attach = self.greet(node_id)
        self.moving().receive(encode_answer(attach.a, self.epoch, 0, self.attached_at(node_id)))
        assert self.finish()
        return attach


# -- when to follow


def test_the_session_goes_where_the_updates_of_a_good_while_were_ordered() -> None:
    talk = Travel()
    talk.updates(FOLLOW_UPDATES - 1, "b")
    assert talk.session.move is None
    talk.updates(1, "b")
    assert (talk.moving().address, talk.moving().node_id) == (parse_address(B), "b")
    attach = talk.go("b")
    assert (attach.b, attach.c, unpack_body(attach.body)) == (77, 2, [False])
    assert (talk.session.node_id, talk.session.address) == ("b", parse_address(B))
    assert talk.session.attached
    talk.updates(3, "b")


def test_the_key_is_proved_to_the_other_node_too() -> None:
    talk = Travel(key=b"secret")
    talk.updates(FOLLOW_UPDATES, "b")
    talk.go("b")
    assert talk.session.attached


def open_and_greet(talk: Travel) -> PlannedMove:
    """The second link is up and greeted; nothing has happened since."""
    move = talk.moving()
    move.open(NONCE)
    acceptor = Acceptor(Identity("test", b"", "b", 1), NONCE)
    move.receive(acceptor.receive(decode_datagram(move.outgoing.pop())))
    assert move.stage is MoveState.CONNECTED
    return move


def test_the_session_goes_between_calls() -> None:
    """Asked on both links at once it had its answer sent to the one that was dropped, and timed out."""
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    before = talk.update()
    move = open_and_greet(talk)
    talk.session.advance_move(talk.now_ns)
    assert move.outgoing == [], "something is under way on the first link"
    waits = talk.update()
    assert [frame.a for frame in talk.requests()] == [before.number]
    talk.answer(before.number)
    talk.session.advance_move(talk.now_ns)
    attach = decode_datagram(move.outgoing.pop())
    later = talk.update()
    assert talk.requests() == [] and attach.kind == Kind.ATTACH
    move.receive(encode_answer(attach.a, 1, 0, talk.attached_at("b")))
    assert talk.finish()
    requests = talk.requests()
    assert [frame.a for frame in requests] == [waits.number, later.number]
    for request in requests:
        talk.answer(request.a)
    assert [outcome(call) for call in (before, waits, later)] == [codes.OK] * 3


def test_a_session_that_is_never_between_calls_stays_for_now() -> None:
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    slow = talk.ask(Kind.SYNCHRONIZE)
    move = open_and_greet(talk)
    talk.session.advance_move(talk.now_ns)
    waits = talk.update()
    talk.requests()
    talk.wait(MOVE_QUIESCE_NS - 1)
    talk.session.advance_move(talk.now_ns)
    assert move.under_way
    assert talk.session.wake_ns <= talk.now_ns + 1
    talk.now_ns += 1
    talk.session.advance(talk.now_ns)
    talk.session.advance_move(talk.now_ns)
    assert not move.under_way and not move.asked
    assert not talk.finish()
    (request,) = talk.requests()
    assert request.a == waits.number
    talk.answer(request.a)
    talk.answer(slow.number)
    assert (outcome(waits), outcome(slow)) == (codes.OK, codes.OK)
    talk.updates(3 * FOLLOW_UPDATES, "b")
    assert talk.session.move is None
    talk.now_ns += REST_NS
    talk.updates(FOLLOW_UPDATES, "b")
    assert talk.moving().address == parse_address(B)


def test_a_call_that_is_to_be_repeated_waits_too_and_keeps_its_time_out() -> None:
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    call = talk.update(timeout_ns=MOVE_QUIESCE_NS // 2)
    slow = talk.ask(Kind.SYNCHRONIZE)
    talk.requests()
    talk.try_again(call.number)
    open_and_greet(talk)
    talk.session.advance_move(talk.now_ns)
    talk.wait(MOVE_QUIESCE_NS // 2)
    assert talk.requests() == []
    assert outcome(call) == codes.TRY_AGAIN
    assert outcome(slow) is None


def test_a_session_that_does_not_follow_the_active_replica_stays() -> None:
    talk = Travel(follows=False)
    talk.updates(3 * FOLLOW_UPDATES, "b")
    assert talk.session.move is None


@pytest.mark.parametrize("active", ["", "a"])
def test_there_is_nowhere_to_go_where_the_active_replica_is_here_or_unknown(active: str) -> None:
    talk = Travel()
    talk.updates(3 * FOLLOW_UPDATES, active)
    assert talk.session.move is None


def test_checkpoints_with_active_replicas_here_and_there_keep_the_session_where_it_is() -> None:
    talk = Travel()
    for _ in range(FOLLOW_UPDATES):
        talk.updates(OTHER_NODE_PENALTY, "b")
        talk.updates(1, "a")
    assert talk.session.move is None
    for _ in range(FOLLOW_UPDATES):
        talk.updates(1, "b")
        talk.updates(1, "c")
    assert talk.session.move is None


def test_where_nearly_all_updates_go_to_one_node_the_session_follows() -> None:
    talk = Travel()
    for _ in range(2 * FOLLOW_UPDATES // OTHER_NODE_PENALTY):
        if talk.session.move is None:
            talk.updates(2 * OTHER_NODE_PENALTY, "b")
            talk.updates(1, "a")
    assert talk.moving().node_id == "b"


def test_reads_do_not_count() -> None:
    talk = Travel()
    for _ in range(2 * FOLLOW_UPDATES):
        call = talk.ask(Kind.READ)
        talk.requests()
        talk.receive(encode_answer(call.number, 1, PLACES["b"], answer_ok([b""])))
    assert talk.session.move is None


def test_a_session_that_set_an_active_replica_stays_where_it_did() -> None:
    """ActiveReplicaSet means the local replica: afterwards it matters where the session is."""
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    talk.ask(Kind.ACTIVE_SET)
    assert not talk.moving().under_way
    assert not talk.finish()
    for frame in talk.requests():
        talk.answer(frame.a)
    talk.updates(2 * FOLLOW_UPDATES, "b")
    assert talk.session.move is None


def test_places_of_another_epoch_mean_nothing_until_its_members_are_known() -> None:
    """In epoch 2 node a is gone, and place 2 is c's; with the members of epoch 1 it would be b."""
    talk = Travel()
    talk.updates(FOLLOW_UPDATES - 1, "b")
    talk.epoch, talk.members = 2, {"a": [A], "c": [C]}
    talk.updates(FOLLOW_UPDATES, "b")
    assert talk.session.move is None
    talk.updates(FOLLOW_UPDATES, "b")
    assert talk.moving().node_id == "c"


@pytest.mark.parametrize("payload", [None, 5, [], {}, {"epoch": 2}, {"epoch": 2, "members": [[1], 5, ["b"]]}])
def test_members_that_make_no_sense_are_as_none(payload: object) -> None:
    talk = Travel()
    talk.epoch = 2
    for _ in range(5 * FOLLOW_UPDATES):
        talk.update()
        for frame in talk.requests():
            body = answer_ok(payload) if frame.kind == Kind.DESCRIBE else answer_ok()
            talk.receive(encode_answer(frame.a, 2, 2, body))
    assert talk.session.move is None
    assert talk.session.attached


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ([], B),
        (["nonsense", "unix:///b.sock", "tcp://b:0"], B),
        (["tcp://elsewhere:9"], "tcp://elsewhere:9"),
    ],
)
def test_what_the_members_list_says_is_used_where_it_can_be(urls: list[str], expected: str) -> None:
    talk = Travel()
    talk.epoch, talk.members = 2, {"a": [A], "b": urls}
    talk.updates(2 * FOLLOW_UPDATES, "b")
    assert talk.moving().address == parse_address(expected)


# -- moves that fail, and how often there is one


def test_a_move_that_fails_costs_nothing_and_is_not_tried_again_for_a_while() -> None:
    talk = Travel(A)
    talk.updates(FOLLOW_UPDATES, "b")
    talk.moving().fail("the host's name is not known")
    assert not talk.finish()
    assert talk.session.attached and talk.sent() == []
    talk.updates(3 * FOLLOW_UPDATES, "b")
    assert talk.session.move is None
    talk.now_ns += AVOID_NS
    talk.updates(FOLLOW_UPDATES, "b")
    assert talk.moving().node_id == "b"


def test_where_one_address_of_a_node_fails_another_is_tried() -> None:
    talk = Travel(f"{A},tcp://outside:5")
    talk.updates(FOLLOW_UPDATES, "b")
    assert talk.moving().address == parse_address(B)
    talk.moving().fail("unreachable")
    talk.finish()
    talk.updates(FOLLOW_UPDATES, "b")
    assert talk.moving().address == parse_address("tcp://outside:5")


def test_another_node_at_the_address_is_a_failed_move_that_is_remembered() -> None:
    talk = Travel(f"{A},tcp://outside:5")
    talk.members = {"a": [A], "b": [], "c": []}
    talk.epoch = 2
    talk.updates(2 * FOLLOW_UPDATES, "b")
    assert talk.moving().address == parse_address("tcp://outside:5")
    talk.moving().open(NONCE)
    hello = decode_datagram(talk.moving().outgoing.pop())
    talk.moving().receive(Acceptor(Identity("test", b"", "c", 1), NONCE).receive(hello))
    assert "node 'c' answers there instead of node 'b'" in talk.moving().why
    assert not talk.moving().asked
    assert not talk.finish()
    talk.now_ns += AVOID_NS
    talk.updates(2 * FOLLOW_UPDATES, "b")
    assert talk.session.move is None
    talk.updates(2 * FOLLOW_UPDATES, "c")
    assert talk.moving().address == parse_address("tcp://outside:5")


@pytest.mark.parametrize("code", [codes.TRY_AGAIN, codes.UNAVAILABLE, codes.BAD_HANDLE])
def test_a_node_that_does_not_take_the_session_is_left_and_the_old_one_is_attached_again(code: int) -> None:
    """The service may have tied the session to the other node, which would end it after the grace time."""
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    attach = talk.greet("b")
    waiting = talk.update()
    talk.moving().receive(encode_answer(attach.a, 1, 0, answer_error(code, "not now")))
    assert not talk.finish()
    (again,) = talk.sent()
    assert (again.kind, again.c) == (Kind.ATTACH, attach.c + 1)
    later = talk.update()
    talk.answer(again.a, talk.attached_at("a"))
    requests = talk.requests()
    assert [request.a for request in requests] == [waiting.number, later.number]
    for request in requests:
        talk.answer(request.a)
    assert (outcome(waiting), outcome(later)) == (codes.OK, codes.OK)
    assert talk.session.node_id == "a"


def test_a_move_cancelled_before_attach_leaves_the_old_node_alone() -> None:
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    talk.moving().open(NONCE)
    talk.moving().fail("in time")
    assert not talk.finish()
    assert talk.sent() == [] and talk.session.attached


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\nServer: another\r\n\r\n", b"\0" * 64])
def test_something_else_that_listens_there_is_a_failed_move(answer: bytes) -> None:
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    talk.moving().open(NONCE)
    talk.moving().receive(answer)
    assert talk.moving().stage is MoveState.FAILED and "not a ckptd" in talk.moving().why


def test_a_link_that_is_lost_during_a_move_ends_the_move() -> None:
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    move = talk.moving()
    attach = talk.greet("b")
    talk.lose()
    assert talk.session.move is None
    move.receive(encode_answer(attach.a, 1, 0, talk.attached_at("b")))
    assert not talk.session.finish_move(move, talk.now_ns)
    assert talk.session.state is SessionState.DISCONNECTED
    again = talk.attach()
    assert again.c == attach.c + 1


def test_after_a_move_there_is_no_other_for_a_while() -> None:
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    talk.go("b")
    talk.now_ns += REST_NS - 1
    talk.updates(3 * FOLLOW_UPDATES, "c")
    assert talk.session.move is None
    talk.now_ns += 1
    talk.updates(FOLLOW_UPDATES, "c")
    assert talk.moving().node_id == "c"


def test_a_node_whose_link_was_lost_is_not_followed_to_for_a_while() -> None:
    """What we cannot reach the others may reach well: going back at once would lose it again."""
    talk = Travel(f"{A},{B}")
    talk.updates(FOLLOW_UPDATES, "b")
    talk.go("b")
    talk.now_ns += REST_NS
    talk.lose("the node does not answer")
    talk.now_ns = max(talk.now_ns, talk.session.connect_ns)
    call = talk.update()
    talk.connect()
    (attach,) = talk.sent()
    talk.answer(attach.a, talk.attached_at("a"))
    for request in talk.requests():
        talk.answer(request.a)
    assert call.done
    talk.updates(3 * FOLLOW_UPDATES, "b")
    assert talk.session.move is None
    talk.now_ns += AVOID_NS
    talk.updates(FOLLOW_UPDATES, "b")
    assert talk.moving().node_id == "b"


def test_when_the_node_gone_to_is_lost_the_others_are_tried() -> None:
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    talk.go("b")
    call = talk.update()
    talk.requests()
    talk.lose()
    assert talk.session.address != parse_address(B)
    talk.attach(A, B, C)
    (request,) = talk.requests()
    talk.answer(request.a)
    assert outcome(call) == codes.OK


def test_ending_the_session_ends_the_move() -> None:
    talk = Travel()
    talk.updates(FOLLOW_UPDATES, "b")
    move = talk.moving()
    talk.session.end("closed")
    assert talk.session.move is None
    move.fail("given up")
    assert not talk.session.finish_move(move, talk.now_ns)


# -- whether to follow at all, and by which address


@pytest.mark.parametrize(
    ("asked", "addresses", "given", "follows"),
    [
        (None, A, True, False),
        (None, "unix:///a", True, False),
        (None, f"{A},{B}", True, True),
        (None, "unix:///a,unix:///b", True, True),
        (None, "unix:///a,unix:///b", False, False),
        (True, "unix:///a", False, True),
        (False, f"{A},{B}", True, False),
    ],
)
def test_with_several_addresses_the_session_chooses_the_node(
    asked: bool | None, addresses: str, given: bool, follows: bool
) -> None:
    assert wants_affinity(asked, parse_addresses(addresses), given) is follows


def test_the_addresses_of_a_node_are_known_ones_then_announced_ones_then_unknown_ones() -> None:
    unix, udp = "unix:///b", "udp://b:2"
    route = Endpoints(parse_addresses(f"{A},{unix},{udp},tcp://x:1"))
    route.update_members({"b": [B, A]})
    route.succeeded("a")
    route.remember(parse_address(unix), "b")
    assert [str(address) for address in route.addresses_of("b")] == [unix, B, "tcp://x:1"]


def test_what_is_avoided_is_forgotten_in_time() -> None:
    following = ActiveAffinity()
    for port in range(1, 1000):
        following.cool_down(Address("tcp", "h", port), port * SECOND_NS)
    assert len(following._avoided) <= AVOID_NS // SECOND_NS + 1


def test_too_big_over_a_stream_is_the_answer() -> None:
    talk = Travel()
    call = talk.update()
    talk.requests()
    talk.answer(call.number, answer_error(codes.TOO_BIG, "the name"))
    assert outcome(call) == codes.TOO_BIG
