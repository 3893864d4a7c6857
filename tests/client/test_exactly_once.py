"""No request is applied twice, none that was acknowledged is lost, whatever goes wrong on the way."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_client.session.address import parse_address, parse_addresses
from ckpt_client.session.attachment import SessionState
from ckpt_client.session.call import MILLISECOND_NS, Call
from ckpt_client.session.planned_move import MoveState, PlannedMove
from ckpt_client.session.session import Session
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.framing import Frame, FrameDecoder, decode_datagram
from ckpt_protocol.handshake import Acceptor, Identity
from ckpt_protocol.messages import Kind, answer_error, answer_ok, encode_answer

NONCE = b"0123456789abcdef"
SESSION = 77


class Cluster:
    """Two nodes with one memory, and one link; `applied` is the order in which updates were carried out.

    It forgets answers below `lowest`, as the service may, and notices when a request comes that it has
    forgotten.
    """

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.bodies: dict[int, bytes] = {}
        self.answers: dict[int, bytes] = {}
        self.generation = 0
        self.lowest = 0
        self.acceptor = Acceptor(Identity("test"), NONCE)

    def serve(self, frame: Frame, refuse: bool = False, late: bool = False) -> bytes:
        """The answer to one frame. `refuse`: TRY_AGAIN, nothing done. `late`: it may come out of order."""
        if frame.kind == Kind.HELLO:
            self.acceptor = Acceptor(Identity("test"), NONCE)
            return self.acceptor.receive(frame)
        if frame.kind == Kind.ATTACH:
            assert frame.b == SESSION
            if frame.c < self.generation:
                return encode_answer(frame.a, 1, 1, answer_error(codes.BAD_HANDLE))
            self.generation = frame.c
            body = answer_error(codes.TRY_AGAIN) if refuse else answer_ok(["a", []])
            return encode_answer(frame.a, 1, 1, body)
        if frame.kind == Kind.PING:
            return encode_answer(frame.a, 1, 1, answer_ok())
        return encode_answer(frame.a, 1, 1, self._update(frame, refuse, late))

    def _update(self, frame: Frame, refuse: bool, late: bool) -> bytes:
        assert frame.c <= frame.a, "lowest above the request itself"
        assert late or frame.c >= self.lowest, "lowest went back"
        self.lowest = max(self.lowest, frame.c)
        if frame.a < self.lowest:
            return answer_error(codes.TIMEOUT, "long forgotten")
        assert self.bodies.setdefault(frame.a, frame.body) == frame.body, (
            "a number was used for another request"
        )
        for number in [number for number in self.answers if number < self.lowest]:
            del self.answers[number]
        if frame.a in self.answers:
            return self.answers[frame.a]
        assert frame.a not in self.applied, "the client let us forget the answer to what it asks again"
        if refuse:
            return answer_error(codes.TRY_AGAIN)
        self.applied.append(frame.a)
        self.answers[frame.a] = answer_ok([frame.a])
        return self.answers[frame.a]


class World:
    """The client's session, the cluster, and what is under way between them."""

    def __init__(self, addresses: str) -> None:
        self.session = Session(SESSION, parse_addresses(addresses), Identity(""))
        self.datagram = addresses.startswith("udp")
        self.cluster = Cluster()
        self.now_ns = 10**12
        self.to_service: list[bytes] = []
        self.to_client: list[bytes] = []
        self.strayed: list[bytes] = []
        self.calls: list[Call] = []
        self.moves = 0

    def step(self, choice: int, place: int) -> None:
        """One of the things that can happen now."""
        match choice:
            case 0 | 1:
                body = pack_body([len(self.calls)])
                timeout_ns = (20, 300, 3000)[place % 3] * MILLISECOND_NS
                self.calls.append(self.session.begin(Kind.UPDATE, 5, body, self.now_ns, timeout_ns))
            case 2 | 3 | 4:
                self.serve(refuse=False, place=place)
            case 5:
                self.serve(refuse=True, place=place)
            case 6 | 7 | 8:
                self.deliver(place)
            case 9:
                self.lose()
            case 10:
                self.connect()
            case 11:
                self.pass_time((place + 1) * 7 * MILLISECOND_NS)
            case 12:
                self.pass_time((place + 1) * 150 * MILLISECOND_NS)
            case 13:
                unfinished = [call for call in self.calls if not call.done]
                if unfinished:
                    self.session.abandon(unfinished[place % len(unfinished)], self.now_ns)
            case 14 if self.datagram:
                self.spoil_datagrams(place)
            case 15:
                self.stray_in(place)
            case 20 if not self.datagram:
                self.begin_move()
            case 21 | 22:
                self.advance_move(refuse=place == 5, fail=place == 4)
            case 16 | 17 | 18 | 19:
                # The usual course of things, so that examples get somewhere.
                self.connect()
                self.collect()
                self.serve(refuse=False, place=place)
                self.deliver(place)
        self.collect()

    def collect(self) -> None:
        """What the session wants to send is under way; a link that it left is gone."""
        if self.session.state is SessionState.DISCONNECTED:
            self.strayed.extend(self.to_service)
            self.to_service.clear()
            self.to_client.clear()
        self.to_service.extend(self.session.outgoing)
        self.session.outgoing.clear()

    def connect(self) -> None:
        if self.session.state is SessionState.DISCONNECTED:
            self.now_ns = max(self.now_ns, self.session.connect_ns)
            self.session.open_link(NONCE, self.now_ns)

    def serve(self, refuse: bool, place: int) -> None:
        if self.to_service:
            at = place % len(self.to_service) if self.datagram else 0
            frame = decode_datagram(self.to_service.pop(at))
            self.to_client.append(self.cluster.serve(frame, refuse, late=self.datagram))

    def deliver(self, place: int) -> None:
        if self.to_client:
            at = place % len(self.to_client) if self.datagram else 0
            self.session.receive(self.to_client.pop(at), self.now_ns)

    def lose(self) -> None:
        """The link goes, and answers with it; what the client had sent may still reach the service."""
        if self.session.state is not SessionState.DISCONNECTED:
            self.session.lose_link(self.now_ns, "lost")

    def begin_move(self) -> None:
        """The session wants to go elsewhere, as after many updates that were ordered there."""
        session = self.session
        if session.attached and session.move is None:
            session.move = PlannedMove(parse_address("tcp://b:2"), "", Identity(""), session._next_attach)

    def advance_move(self, refuse: bool, fail: bool) -> None:
        """One step on the second link."""
        move = self.session.move
        if move is None:
            return
        if fail:
            move.fail("cannot be reached")
        elif move.stage is MoveState.OPENING:
            move.open(NONCE)
        else:
            for frame in move.outgoing[:]:
                move.outgoing.remove(frame)
                move.receive(self.cluster.serve(decode_datagram(frame), refuse))
            self.session.advance_move(self.now_ns)
        if not move.under_way and self.session.finish_move(move, self.now_ns):
            self.moves += 1
            self.strayed.extend(self.to_service)
            self.to_service.clear()
            self.to_client.clear()

    def spoil_datagrams(self, place: int) -> None:
        """A request is lost, an answer doubled."""
        if self.to_service:
            self.to_service.pop(place % len(self.to_service))
        if self.to_client:
            self.to_client.append(self.to_client[place % len(self.to_client)])

    def stray_in(self, place: int) -> None:
        """What was sent on a link that was lost reaches the service after all, or never."""
        if self.strayed:
            frame = decode_datagram(self.strayed.pop(place % len(self.strayed)))
            if frame.kind == Kind.UPDATE and place % 2:
                self.cluster.serve(frame, late=True)

    def pass_time(self, duration_ns: int) -> None:
        self.now_ns += duration_ns
        self.session.advance(self.now_ns)

    def settle(self) -> None:
        """Faults stop: everything that waits is answered."""
        for _ in range(2000):
            if all(call.done for call in self.calls):
                return
            self.connect()
            self.collect()
            while self.to_service:
                self.serve(refuse=False, place=0)
            while self.to_client:
                self.deliver(0)
                self.collect()
            self.pass_time(5 * MILLISECOND_NS)
            self.collect()
        raise AssertionError("a call was never answered")


STEPS = st.lists(st.tuples(st.integers(0, 22), st.integers(0, 5)), min_size=20, max_size=200)


def check(world: World) -> None:
    """From outside: what was acknowledged was done, once; what nothing was done for was not."""
    applied = world.cluster.applied
    assert len(set(applied)) == len(applied)
    for call in world.calls:
        if call.code == codes.OK:
            assert call.number in applied
            assert call.payload == [call.number], "another request's answer"
        elif call.code in (codes.TRY_AGAIN, codes.UNAVAILABLE):
            assert call.number not in applied, "said that nothing was done, and it was"
    assert all(unpack_body(body) is not None for body in world.cluster.bodies.values())


def run(addresses: str, steps: list[Any]) -> None:
    world = World(addresses)
    for choice, place in steps:
        world.step(choice, place)
        check(world)
    world.settle()
    check(world)
    assert world.session.calls == {} or all(call.orphan for call in world.session.calls.values())


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_over_streams(steps: list[Any]) -> None:
    run("tcp://a:1,tcp://b:2", steps)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_over_datagrams_that_are_lost_doubled_and_out_of_order(steps: list[Any]) -> None:
    run("udp://a:1,udp://b:2", steps)


def test_a_refusal_that_comes_twice_is_no_answer_to_the_duplicate_that_was_sent_since() -> None:
    """Over datagrams: the second copy of TRY_AGAIN came when the request was under way again, and was done.

    The caller's time was over then, and it was told that nothing had been done.
    """
    world = World("udp://a:1")
    session = world.session
    call = session.begin(Kind.UPDATE, 5, pack_body([0]), world.now_ns, 20 * MILLISECOND_NS)
    world.calls.append(call)
    world.connect()
    world.collect()
    for _ in range(2):  # The first exchange, ATTACH.
        world.serve(refuse=False, place=0)
        world.deliver(0)
        world.collect()
    world.serve(refuse=True, place=0)
    world.to_client *= 2
    world.deliver(0)
    world.pass_time(7 * MILLISECOND_NS)
    world.collect()
    world.serve(refuse=False, place=0)
    world.to_client.pop()  # What was done is not told.
    world.deliver(0)
    world.pass_time(14 * MILLISECOND_NS)
    assert call.code == codes.TIMEOUT
    check(world)


def test_the_examples_get_somewhere() -> None:
    """A property that is never put to the test holds always."""
    chance = random.Random(7)
    seen: set[str] = set()
    for _ in range(60):
        world = World("tcp://a:1,tcp://b:2")
        for _ in range(150):
            world.step(chance.randrange(23), chance.randrange(6))
        world.settle()
        check(world)
        seen |= {f"ended with {call.code}" for call in world.calls}
        seen |= {"went elsewhere"} if world.cluster.generation > 2 else set()
        seen |= {"moved by itself"} if world.moves else set()
        seen |= (
            {"applied after its caller had gone"}
            if any(
                call.code == codes.TIMEOUT and call.number in world.cluster.applied for call in world.calls
            )
            else set()
        )
    wanted = {"ended with 1", "ended with 5", "ended with 6", "ended with 31"}
    assert seen >= wanted | {"went elsewhere", "moved by itself", "applied after its caller had gone"}, seen


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_garbage_never_raises(chunks: list[bytes]) -> None:
    for addresses in ("tcp://a:1", "udp://a:1"):
        world = World(addresses)
        world.step(0, 0)
        world.connect()
        for chunk in chunks:
            world.session.receive(chunk, world.now_ns)
            world.collect()
            world.connect()


def test_the_decoder_and_the_quick_path_agree() -> None:
    frame = encode_answer(3, 1, 1, answer_ok())
    assert FrameDecoder().feed(frame) == [decode_datagram(frame)]
