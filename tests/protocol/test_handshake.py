"""The first exchange: who is let in, who is not, and that a proof cannot be used twice."""

import hmac
from typing import Any

import msgpack
import pytest
from tests.protocol.representative import NONCE_A, NONCE_B

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, decode_datagram
from ckpt_protocol.handshake import (
    ROLE_CLIENT,
    ROLE_OPERATOR,
    ROLE_PEER,
    SIGNATURE_BYTES,
    Acceptor,
    HandshakeRejected,
    Identity,
    Opener,
    PeerIdentity,
    parse_refused,
    sign,
    verify,
)
from ckpt_protocol.limits import HELLO_DATAGRAM_BYTES
from ckpt_protocol.messages import Kind

KEY = b"the cluster's key"
NODE_A = Identity("prod", b"", "a", 11, ("tcp://host-a:7301",))
NODE_B = Identity("prod", b"", "b", 22, ("tcp://host-b:7301", "udp://host-b:7301"))
CLIENT = Identity("prod")


def with_key(identity: Identity, key: bytes = KEY) -> Identity:
    return Identity(identity.cluster, key, identity.node_id, identity.incarnation, identity.urls)


def exchange(opener: Opener, acceptor: Acceptor) -> PeerIdentity:
    """Carry the frames across; what the opener learns is returned."""
    welcome = acceptor.receive(decode_datagram(opener.hello()))
    peer, proof = opener.receive(decode_datagram(welcome))
    if proof:
        assert acceptor.peer is None
        assert acceptor.receive(decode_datagram(proof)) == b""
    assert acceptor.peer is not None
    return peer


def hello(*changes: tuple[int, Any], a: int = 1, b: int = 1, c: int = ROLE_PEER) -> Frame:
    """Node b's HELLO with some of its fields replaced."""
    fields: list[Any] = ["ckptd", "prod", NONCE_A, "b", 22, []]
    for place, value in changes:
        fields[place] = value
    return Frame(Kind.HELLO, a, b, c, pack_body(fields))


def welcome(*changes: tuple[int, Any], a: int = 1, b: int = 0) -> Frame:
    """Node a's WELCOME with some of its fields replaced."""
    fields: list[Any] = ["prod", NONCE_B, "a", b"", []]
    for place, value in changes:
        fields[place] = value
    return Frame(Kind.WELCOME, a, b, 11, pack_body(fields))


def refused(acceptor: Acceptor, frame: Frame) -> HandshakeRejected:
    with pytest.raises(HandshakeRejected) as raised:
        acceptor.receive(frame)
    assert acceptor.peer is None
    return raised.value


# -- the good way


@pytest.mark.parametrize("key", [b"", KEY], ids=["no key", "key"])
def test_two_nodes_learn_each_others_identity(key: bytes) -> None:
    acceptor = Acceptor(with_key(NODE_A, key), NONCE_B)
    peer = exchange(Opener(with_key(NODE_B, key), ROLE_PEER, NONCE_A), acceptor)
    assert peer == PeerIdentity(1, ROLE_PEER, "a", 11, ("tcp://host-a:7301",))
    assert acceptor.peer == PeerIdentity(1, ROLE_PEER, "b", 22, NODE_B.urls)


@pytest.mark.parametrize("key", [b"", KEY], ids=["no key", "key"])
def test_a_client_shakes_hands_without_a_name(key: bytes) -> None:
    acceptor = Acceptor(with_key(NODE_A, key), NONCE_B)
    assert exchange(Opener(with_key(CLIENT, key), ROLE_CLIENT, NONCE_A), acceptor).node_id == "a"
    assert acceptor.peer == PeerIdentity(1, ROLE_CLIENT, "", 0, ())


def test_a_client_that_names_no_cluster_takes_any() -> None:
    assert exchange(Opener(Identity(""), ROLE_CLIENT, NONCE_A), Acceptor(NODE_A, NONCE_B)).node_id == "a"


def test_a_client_that_names_no_cluster_proves_its_key_for_the_acceptors() -> None:
    opener = Opener(Identity("", KEY), ROLE_CLIENT, NONCE_A)
    assert exchange(opener, Acceptor(with_key(NODE_A), NONCE_B)).node_id == "a"


def test_the_proof_is_computed_as_the_document_says() -> None:
    """docs/protocol.md: HMAC-SHA256 under the key of the msgpack array of six fields."""
    acceptor = Acceptor(with_key(NODE_A), NONCE_B)
    opener = Opener(with_key(CLIENT), ROLE_CLIENT, NONCE_A)
    answer = decode_datagram(acceptor.receive(decode_datagram(opener.hello())))
    _, proof = opener.receive(answer)

    def expected(who: str) -> bytes:
        said = msgpack.packb(["ckptd", who, 1, "prod", NONCE_A, NONCE_B], use_bin_type=True)
        return hmac.digest(KEY, said, "sha256")

    assert answer.b == 1
    assert unpack_body(answer.body)[3] == expected("acceptor")
    assert decode_datagram(proof).body == expected("opener")


# -- versions


@pytest.mark.parametrize(("low", "high"), [(2, 9), (0, 0)])
def test_versions_without_overlap_are_refused(low: int, high: int) -> None:
    refusal = refused(Acceptor(NODE_A, NONCE_B), hello(a=low, b=high))
    assert refusal.code == codes.VERSION
    frame = decode_datagram(refusal.frame())
    assert (frame.kind, frame.a, frame.b, frame.c) == (Kind.REFUSED, codes.VERSION, 1, 1)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (0, 1), (1, 9), (0, 2**64 - 1)])
def test_versions_that_overlap_agree_on_the_highest_of_both(low: int, high: int) -> None:
    acceptor = Acceptor(NODE_A, NONCE_B)
    assert decode_datagram(acceptor.receive(hello(a=low, b=high))).a == 1
    assert acceptor.peer is not None


@pytest.mark.parametrize("version", [0, 2])
def test_an_opener_refuses_a_version_that_it_did_not_offer(version: int) -> None:
    with pytest.raises(HandshakeRejected) as raised:
        Opener(NODE_B, ROLE_PEER, NONCE_A).receive(welcome(a=version))
    assert raised.value.code == codes.VERSION


def test_an_opener_receives_the_reason_of_a_refusal() -> None:
    frame = decode_datagram(HandshakeRejected(codes.VERSION, "too new").frame())
    with pytest.raises(HandshakeRejected, match="too new") as raised:
        Opener(NODE_B, ROLE_PEER, NONCE_A).receive(frame)
    assert raised.value.code == codes.VERSION


# -- clusters and names


@pytest.mark.parametrize("role", [ROLE_CLIENT, ROLE_PEER, ROLE_OPERATOR])
def test_another_cluster_is_refused(role: int) -> None:
    refusal = refused(Acceptor(NODE_A, NONCE_B), hello((1, "test"), c=role))
    assert refusal.code == codes.ACCESS
    assert "'prod'" in refusal.text and "'test'" in refusal.text


def test_a_peer_must_name_its_cluster() -> None:
    assert refused(Acceptor(NODE_A, NONCE_B), hello((1, ""))).code == codes.ACCESS


def test_an_opener_refuses_another_cluster() -> None:
    with pytest.raises(HandshakeRejected) as raised:
        Opener(NODE_B, ROLE_PEER, NONCE_A).receive(welcome((0, "test")))
    assert raised.value.code == codes.ACCESS


@pytest.mark.parametrize("name", ["", "a"], ids=["no name", "our own name"])
def test_a_peer_without_a_name_of_its_own_is_refused(name: str) -> None:
    assert refused(Acceptor(NODE_A, NONCE_B), hello((3, name))).code == codes.ACCESS


# -- keys


@pytest.mark.parametrize("key", [b"", b"another key"], ids=["no proof", "wrong key"])
def test_a_proof_under_another_key_is_refused(key: bytes) -> None:
    acceptor = Acceptor(with_key(NODE_A), NONCE_B)
    acceptor.receive(hello())
    said = pack_body(["ckptd", "opener", ROLE_PEER, "prod", NONCE_A, NONCE_B])
    body = hmac.digest(key, said, "sha256") if key else b""
    assert refused(acceptor, Frame(Kind.PROOF, 0, 0, 0, body)).code == codes.ACCESS


def test_an_opener_finds_out_that_the_acceptor_has_another_key() -> None:
    acceptor = Acceptor(with_key(NODE_A, b"another key"), NONCE_B)
    opener = Opener(with_key(NODE_B), ROLE_PEER, NONCE_A)
    frame = decode_datagram(acceptor.receive(decode_datagram(opener.hello())))
    with pytest.raises(HandshakeRejected) as raised:
        opener.receive(frame)
    assert raised.value.code == codes.ACCESS


def test_an_opener_without_a_key_stays_out_where_one_is_asked_for() -> None:
    with pytest.raises(HandshakeRejected) as raised:
        Opener(NODE_B, ROLE_PEER, NONCE_A).receive(welcome(b=1))
    assert raised.value.code == codes.ACCESS


def test_an_opener_with_a_key_does_not_talk_to_a_node_without_one() -> None:
    with pytest.raises(HandshakeRejected) as raised:
        Opener(with_key(NODE_B), ROLE_PEER, NONCE_A).receive(welcome(b=0))
    assert raised.value.code == codes.ACCESS


def test_a_request_in_place_of_a_proof_is_refused() -> None:
    acceptor = Acceptor(with_key(NODE_A), NONCE_B)
    acceptor.receive(hello(c=ROLE_CLIENT))
    assert refused(acceptor, Frame(Kind.PING, 1, 0, 1, pack_body([]))).code == codes.ACCESS


def test_a_proof_that_was_overheard_opens_no_second_connection() -> None:
    opener = Opener(with_key(NODE_B), ROLE_PEER, NONCE_A)
    first = Acceptor(with_key(NODE_A), NONCE_B)
    _, proof = opener.receive(decode_datagram(first.receive(decode_datagram(opener.hello()))))
    first.receive(decode_datagram(proof))
    assert first.peer is not None
    second = Acceptor(with_key(NODE_A), bytes(16))
    second.receive(decode_datagram(opener.hello()))
    assert refused(second, decode_datagram(proof)).code == codes.ACCESS


def test_an_acceptors_proof_is_no_openers() -> None:
    """A stranger who sends our own proof back to us is not let in."""
    acceptor = Acceptor(with_key(NODE_A), NONCE_B)
    echoed = unpack_body(decode_datagram(acceptor.receive(hello())).body)[3]
    assert refused(acceptor, Frame(Kind.PROOF, 0, 0, 0, echoed)).code == codes.ACCESS


def test_a_clients_proof_is_no_peers() -> None:
    opener = Opener(with_key(CLIENT), ROLE_CLIENT, NONCE_A)
    _, proof = opener.receive(
        decode_datagram(Acceptor(with_key(NODE_A), NONCE_B).receive(decode_datagram(opener.hello())))
    )
    acceptor = Acceptor(with_key(NODE_A), NONCE_B)
    acceptor.receive(hello(c=ROLE_PEER))
    assert refused(acceptor, decode_datagram(proof)).code == codes.ACCESS


def test_the_key_is_in_no_text() -> None:
    assert "cluster's key" not in repr(with_key(NODE_A))


# -- what is no first exchange


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.PING, 1, 0, 1, pack_body([])),
        Frame(Kind.PROOF, 0, 0, 0, b""),
        hello((0, "redis")),
        hello((2, b"short")),
        hello((2, "text of 16 chars")),
        hello((1, b"prod")),
        hello((3, 7)),
        hello((4, "22")),
        hello((5, "tcp://h:1")),
        hello((5, [1])),
        hello((1, "x" * 256)),
        hello((3, "x" * 65)),
        hello(c=0),
        hello(c=4),
        Frame(Kind.HELLO, 1, 1, 1, pack_body(["ckptd", "prod", NONCE_A])),
        Frame(Kind.HELLO, 1, 1, 1, b""),
    ],
    ids=[
        "a request",
        "a proof",
        "other magic",
        "a short nonce",
        "a nonce of text",
        "a cluster of bytes",
        "a node id of int",
        "an incarnation of text",
        "addresses of text",
        "addresses of int",
        "a long cluster",
        "a long node id",
        "no role",
        "an unknown role",
        "too few fields",
        "no body",
    ],
)
def test_what_is_no_hello_ends_the_connection(frame: Frame) -> None:
    acceptor = Acceptor(NODE_A, NONCE_B)
    with pytest.raises(FrameError):
        acceptor.receive(frame)
    assert acceptor.peer is None


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.ANSWER, 1, 1, 0, pack_body([1])),
        welcome((0, b"prod")),
        welcome((1, "nonce")),
        welcome((2, b"a")),
        welcome((3, None)),
        welcome((4, None)),
        Frame(Kind.WELCOME, 1, 0, 11, pack_body(["prod", NONCE_B])),
        Frame(Kind.REFUSED, 6, 1, 1, pack_body([])),
    ],
    ids=[
        "an answer",
        "a cluster of bytes",
        "a nonce of text",
        "a node id of bytes",
        "no proof",
        "no addresses",
        "too few fields",
        "a refusal without a text",
    ],
)
def test_what_is_no_welcome_ends_the_connection(frame: Frame) -> None:
    with pytest.raises(FrameError):
        Opener(NODE_B, ROLE_PEER, NONCE_A).receive(frame)


def test_a_refusal_over_udp_says_as_much_as_fits() -> None:
    refused = HandshakeRejected(codes.ACCESS, "this is cluster 'prod', and not the other one", 7)
    for bytes_max in range(29, 200):
        frame = refused.frame(bytes_max)
        assert len(frame) <= bytes_max
        read = parse_refused(decode_datagram(frame))
        assert read.code == codes.ACCESS
        assert refused.text.startswith(read.text) or read.text == "it did not give a reason"
    assert (read.text, read.incarnation) == (refused.text, 7)


def test_a_hello_over_udp_is_as_long_as_its_answer_may_be() -> None:
    for about in (b"", NONCE_B):
        opener = Opener(NODE_B, ROLE_CLIENT, NONCE_A, about)
        assert HELLO_DATAGRAM_BYTES <= len(opener.hello(datagram=True)) <= HELLO_DATAGRAM_BYTES + 4
        acceptor = Acceptor(NODE_A, NONCE_B, [about])
        acceptor.receive(decode_datagram(opener.hello(datagram=True)))
        assert acceptor.peer is not None
        assert acceptor.peer.about == about


def test_further_fields_of_later_versions_are_ignored() -> None:
    body = pack_body([*unpack_body(hello().body), b"", "new"])
    acceptor = Acceptor(NODE_A, NONCE_B)
    answer = decode_datagram(acceptor.receive(Frame(Kind.HELLO, 1, 1, ROLE_PEER, body)))
    longer = answer._replace(body=pack_body([*unpack_body(answer.body), "new"]))
    peer, _ = Opener(NODE_B, ROLE_PEER, NONCE_A).receive(longer)
    assert (peer.node_id, acceptor.peer is not None) == ("a", True)


# -- asking back


def asked(about: bytes, opened: list[bytes]) -> Acceptor:
    """Node a, which opened these exchanges, after it was asked about one of them."""
    acceptor = Acceptor(NODE_A, NONCE_B, opened)
    acceptor.receive(decode_datagram(Opener(NODE_B, ROLE_CLIENT, NONCE_A, about).hello()))
    return acceptor


def test_a_node_says_whether_it_opened_an_exchange() -> None:
    opened = b"o" * 16
    acceptor = asked(opened, [opened])
    assert acceptor.peer is not None
    assert acceptor.peer.about == opened
    for others in ([], [NONCE_A]):
        with pytest.raises(HandshakeRejected, match="did not open") as refused:
            asked(opened, others)
        assert refused.value.code == codes.ACCESS


def test_what_is_asked_about_is_a_nonce() -> None:
    body = pack_body([*unpack_body(hello().body), 7])
    with pytest.raises(FrameError):
        Acceptor(NODE_A, NONCE_B, [b"7"]).receive(Frame(Kind.HELLO, 1, 1, ROLE_CLIENT, body))


def test_both_sides_know_the_openers_nonce() -> None:
    acceptor = Acceptor(NODE_A, NONCE_B)
    peer = exchange(Opener(NODE_B, ROLE_PEER, NONCE_A), acceptor)
    assert acceptor.peer is not None
    assert peer.nonce == acceptor.peer.nonce == NONCE_A


# -- datagrams between daemons


def test_a_signed_datagram_is_verified_by_the_same_key_only() -> None:
    signed = sign(KEY, b"heartbeat")
    assert len(signed) == len(b"heartbeat") + SIGNATURE_BYTES
    assert signed[-SIGNATURE_BYTES:] == hmac.digest(KEY, b"heartbeat", "sha256")[:16]
    assert verify(KEY, signed) == b"heartbeat"
    with pytest.raises(FrameError):
        verify(b"another key", signed)


def test_without_a_key_datagrams_travel_as_they_are() -> None:
    assert sign(b"", b"heartbeat") == b"heartbeat"
    assert verify(b"", b"heartbeat") == b"heartbeat"


@pytest.mark.parametrize("place", range(len(b"heartbeat") + SIGNATURE_BYTES))
def test_a_datagram_that_was_changed_anywhere_is_refused(place: int) -> None:
    changed = bytearray(sign(KEY, b"heartbeat"))
    changed[place] ^= 1
    with pytest.raises(FrameError):
        verify(KEY, bytes(changed))


@pytest.mark.parametrize("datagram", [b"", b"x", b"heartbeat", bytes(SIGNATURE_BYTES)])
def test_a_datagram_without_a_signature_is_refused(datagram: bytes) -> None:
    with pytest.raises(FrameError):
        verify(KEY, datagram)
