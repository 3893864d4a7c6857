"""Garbage of every sort: a decoder gives frames or a FrameError, never anything else."""

import contextlib
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.protocol.representative import NONCE_A, NONCE_B, REPRESENTATIVES

from ckpt_protocol.body_codec import bounded_array, unpack_body
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder, decode_datagram, encode_frame
from ckpt_protocol.handshake import Acceptor, HandshakeRejected, Identity, Opener, verify
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer

GOOD = [frame.encode() for frame in REPRESENTATIVES]
KINDS = [Kind.HELLO, Kind.WELCOME, Kind.PROOF, Kind.REFUSED, Kind.ANSWER]


def _change(frame: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(frame)
    for place, value in changes:
        changed[place % len(changed)] = value
    return bytes(changed[: len(changed) - cut % len(changed)])


GARBLED = st.builds(
    _change,
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=6),
    st.integers(0, 40),
)
GARBAGE = st.one_of(st.binary(max_size=300), GARBLED)
BODIES = st.one_of(
    st.binary(max_size=200),
    GARBLED.map(lambda frame: frame[29:]),
    st.binary(max_size=40).map(b"\x96".__add__),
)


@settings(max_examples=300, deadline=None)
@given(chunks=st.lists(GARBAGE, max_size=6))
def test_a_stream_of_garbage_is_frames_or_a_frame_error(chunks: list[bytes]) -> None:
    decoder = FrameDecoder()
    taken = held = 0
    with contextlib.suppress(FrameError):
        for chunk in chunks:
            taken += sum(29 + len(frame.body) for frame in decoder.feed(chunk))
            held = decoder.held_bytes
    assert taken + held <= sum(map(len, chunks))


@settings(max_examples=300, deadline=None)
@given(datagram=GARBAGE)
def test_a_datagram_of_garbage_is_a_frame_or_a_frame_error(datagram: bytes) -> None:
    with contextlib.suppress(FrameError):
        frame = decode_datagram(datagram)
        assert encode_frame(*frame) == datagram


def _decode(decode: Callable[[bytes], object], body: bytes) -> None:
    with contextlib.suppress(FrameError):
        decode(body)


@settings(max_examples=500, deadline=None)
@given(body=BODIES)
@example(body=b"\xd6\xff\x00\x00\x00\x01")
@example(body=b"\xc7\x0c\xff" + b"\xff" * 12)
@example(body=b"\xd7\xff" + b"\xff" * 8)
@example(body=b"\x91" * 2000)
def test_a_body_of_garbage_is_content_or_a_frame_error(body: bytes) -> None:
    _decode(unpack_body, body)
    _decode(lambda packed: bounded_array(packed, BOUNDS[Kind.OPEN], 3), body)
    _decode(decode_answer, body)
    _decode(lambda signed: verify(b"key", signed), body)


U64 = st.integers(0, 2**64 - 1)
SMALL = st.one_of(st.integers(0, 3), U64)
FRAMES = st.builds(Frame, st.sampled_from(KINDS), SMALL, SMALL, SMALL, BODIES)


@settings(max_examples=500, deadline=None)
@given(frames=st.lists(FRAMES, min_size=1, max_size=3), key=st.sampled_from([b"", b"key"]))
def test_an_acceptor_takes_garbage_for_no_peer(frames: list[Frame], key: bytes) -> None:
    acceptor = Acceptor(Identity("prod", key, "a", 11), NONCE_B)
    with contextlib.suppress(FrameError, HandshakeRejected):
        for frame in frames:
            acceptor.receive(frame)
    assert acceptor.peer is None or not key


@settings(max_examples=500, deadline=None)
@given(frame=FRAMES, key=st.sampled_from([b"", b"key"]))
def test_an_opener_takes_garbage_for_no_peer(frame: Frame, key: bytes) -> None:
    opener = Opener(Identity("prod", key), 1, NONCE_A)
    with contextlib.suppress(FrameError, HandshakeRejected):
        peer, _ = opener.receive(frame)
        assert not key
        assert type(peer.node_id) is str
