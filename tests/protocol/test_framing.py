"""Frames in a stream and in datagrams: cut anywhere, refused before they cost anything."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_protocol.bounds_by_kind import NOT_ALLOWED
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import HEADER_BYTES, Frame, FrameDecoder, decode_datagram, encode_frame
from ckpt_protocol.limits import FRAME_BYTES_MAX

U64 = st.integers(0, 2**64 - 1)
FRAMES = st.lists(st.builds(Frame, st.integers(0, 255), U64, U64, U64, st.binary(max_size=80)), max_size=6)
THREE = [Frame(18, 1, 2, 3, b"body"), Frame(23, 2**64 - 1, 0, 2, b""), Frame(30, 1, 5, 0, bytes(70))]


def encode(frames: Iterable[Frame]) -> bytes:
    return b"".join(encode_frame(*frame) for frame in frames)


def length_only(length: int) -> bytes:
    """A header that says this length, and nothing behind it."""
    return length.to_bytes(4, "big") + bytes(HEADER_BYTES - 4)


def test_several_frames_in_one_chunk_come_out_in_order() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(encode(THREE)) == THREE
    assert decoder.held_bytes == 0


@pytest.mark.parametrize("cut", range(len(encode(THREE)) + 1))
def test_a_stream_that_is_cut_at_any_byte_gives_the_same_frames(cut: int) -> None:
    stream = encode(THREE)
    decoder = FrameDecoder()
    first = decoder.feed(stream[:cut])
    assert first == THREE[: len(first)]
    assert decoder.held_bytes == cut - len(encode(first))
    assert first + decoder.feed(stream[cut:]) == THREE
    assert decoder.held_bytes == 0


def test_a_stream_that_comes_byte_by_byte_gives_the_same_frames() -> None:
    decoder = FrameDecoder()
    stream = encode(THREE)
    frames = [frame for place in range(len(stream)) for frame in decoder.feed(stream[place : place + 1])]
    assert frames == THREE


@settings(deadline=None)
@given(frames=FRAMES, cuts=st.lists(st.integers(0, 700), max_size=8))
def test_any_stream_gives_the_same_frames_however_it_is_cut(frames: list[Frame], cuts: list[int]) -> None:
    stream = encode(frames)
    decoder = FrameDecoder()
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    decoded = [frame for start, end in itertools.pairwise(edges) for frame in decoder.feed(stream[start:end])]
    assert decoded == frames
    assert decoder.held_bytes == 0


def test_a_body_does_not_change_when_more_is_received() -> None:
    decoder = FrameDecoder()
    stream = encode(THREE)
    decoder.feed(stream[:10])
    body = decoder.feed(stream[10:])[0].body
    decoder.feed(b"\xff" * 20)
    assert type(body) is bytes
    assert body == b"body"


@pytest.mark.parametrize("length", [0, 1, 24])
def test_a_length_below_the_headers_ends_the_stream(length: int) -> None:
    with pytest.raises(FrameError):
        FrameDecoder().feed(length_only(length))


def test_the_shortest_frame_has_no_body() -> None:
    assert FrameDecoder().feed(length_only(25)) == [Frame(0, 0, 0, 0, b"")]


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX - 4 + 1, 2**32 - 1])
def test_an_oversize_frame_is_refused_by_its_header_alone(length: int) -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameError):
        decoder.feed(length_only(length))
    assert decoder.held_bytes <= HEADER_BYTES


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX - 4 + 1, 2**32 - 1])
def test_an_oversize_frame_is_refused_when_its_header_comes_in_pieces(length: int) -> None:
    decoder = FrameDecoder()
    header = length_only(length)
    assert decoder.feed(header[:-1]) == []
    with pytest.raises(FrameError):
        decoder.feed(header[-1:])


def test_the_largest_frame_is_waited_for() -> None:
    assert FrameDecoder().feed(length_only(FRAME_BYTES_MAX - 4)) == []


def test_a_kind_s_own_limit_holds_and_what_may_not_come_is_refused_by_its_header() -> None:
    """Nothing of such a body is held: the header alone is refused."""
    limits = [71 if kind == 1 else NOT_ALLOWED for kind in range(256)]
    frame = encode_frame(1, 0, 0, 0, bytes(71))
    assert len(FrameDecoder(limits).feed(frame)) == 1
    for wrong in (encode_frame(1, 0, 0, 0, bytes(72)), encode_frame(2, 0, 0, 0), encode_frame(255, 0, 0, 0)):
        with pytest.raises(FrameError, match="of kind"):
            FrameDecoder(limits).feed(wrong[:HEADER_BYTES])


def test_an_oversize_frame_after_a_good_one_is_refused() -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameError):
        decoder.feed(encode(THREE) + length_only(2**32 - 1))


@settings(deadline=None)
@given(frame=st.builds(Frame, st.integers(0, 255), U64, U64, U64, st.binary(max_size=200)))
def test_a_datagram_holds_one_frame(frame: Frame) -> None:
    assert decode_datagram(encode_frame(*frame)) == frame


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        bytes(HEADER_BYTES - 1),
        length_only(26),
        length_only(24),
        encode(THREE),
        encode(THREE[:1]) + b"x",
        encode(THREE[:1])[:-1],
    ],
    ids=["empty", "short", "says more", "says less", "several", "one more byte", "one byte less"],
)
def test_a_datagram_whose_length_disagrees_is_refused(datagram: bytes) -> None:
    with pytest.raises(FrameError):
        decode_datagram(datagram)
