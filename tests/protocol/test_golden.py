"""Every kind of frame, byte for byte: what is on the wire today is read by whoever was built yesterday."""

from pathlib import Path

import pytest
from tests.protocol.representative import REPRESENTATIVES, Representative, kind_numbers, op_numbers

from ckpt_protocol.framing import FrameDecoder, decode_datagram


def _golden() -> dict[str, bytes]:
    text = Path(__file__).with_name("golden.txt").read_text()
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {name: bytes.fromhex("".join(parts)) for name, *parts in lines}


GOLDEN = _golden()


@pytest.mark.parametrize("frame", REPRESENTATIVES, ids=lambda frame: frame.name)
def test_a_frame_is_encoded_as_it_always_was(frame: Representative) -> None:
    assert frame.encode().hex() == GOLDEN[frame.name].hex()


@pytest.mark.parametrize("frame", REPRESENTATIVES, ids=lambda frame: frame.name)
def test_a_frame_of_the_past_is_decoded(frame: Representative) -> None:
    expected = (kind_numbers()[frame.kind], frame.a, frame.b, frame.c, frame.body)
    assert decode_datagram(GOLDEN[frame.name]) == expected
    assert FrameDecoder().feed(GOLDEN[frame.name]) == [expected]


def test_every_kind_has_a_golden_frame() -> None:
    assert {frame.kind for frame in REPRESENTATIVES} == set(kind_numbers())


def test_every_golden_frame_has_its_representative() -> None:
    names = [frame.name for frame in REPRESENTATIVES]
    assert len(names) == len(set(names))
    assert set(GOLDEN) == set(names)


def test_every_operation_of_a_client_has_a_golden_frame() -> None:
    shown = {frame.variant for frame in REPRESENTATIVES if frame.kind == "UPDATE"}
    between_nodes = {"PIECE", "LEADERSHIP"}
    assert shown == set(op_numbers()) - between_nodes
