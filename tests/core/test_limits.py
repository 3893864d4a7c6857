"""How full the limits are: told to who asks, and an alarm where it is nearly all."""

from typing import Any

import pytest
from tests.core.cluster import nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer
from ckptd.core.events import ClientConnected, ClientReceived, SendClient
from ckptd.core.hub import Transport
from ckptd.core.operations.resource_usage import full_limits, nearly_full
from ckptd.core.settings import Settings
from ckptd.core.witness import Witness


def described(node: Any, now_ns: int) -> dict[str, Any]:
    """What a node answers to DESCRIBE."""
    node.handle(ClientConnected(99), now_ns)
    frame = encode_frame(Kind.DESCRIBE, 1, 0, 1, pack_body(["cluster"]))
    effects = node.handle(ClientReceived(99, FrameDecoder().feed(frame)), now_ns)
    (answer,) = [frame for e in effects if isinstance(e, SendClient) for frame in FrameDecoder().feed(e.data)]
    payload = decode_answer(answer.body)[1]
    assert isinstance(payload, dict)
    return payload


@pytest.mark.parametrize(("used", "is_full"), [(0, False), (79, False), (80, True), (100, True)])
def test_a_limit_is_nearly_full_from_four_fifths_on(used: int, is_full: bool) -> None:
    assert full_limits({"x": (used, 100)}) == ({"x": (used, 100)} if is_full else {})


def test_what_is_full_is_distinguished_from_what_nearly_is() -> None:
    limits = {"x": (100, 100), "y": (79, 100), "z": (80, 100), "over": (7, 5)}
    assert nearly_full(limits) == "full: x 100 of 100, over 7 of 5; nearly full: z 80 of 100"
    assert nearly_full({"y": (79, 100)}) == ""


def test_a_node_reports_how_full_its_runtime_is_and_has_an_alarm() -> None:
    cluster = nodes("a")
    node = cluster.node("a")
    node.context.transport = Transport(limits=lambda: {"clients": (1, 10), "bytes": (1, 10)})
    told = described(node, cluster.now_ns)
    assert {tuple(row) for row in told["limits"]} >= {("bytes", 1, 10), ("clients", 1, 10)}
    assert told["alarms"] == []
    node.context.transport = Transport(limits=lambda: {"clients": (9, 10), "bytes": (1, 10)})
    assert described(node, cluster.now_ns)["alarms"] == [["limits", "nearly full: clients 9 of 10"]]


@pytest.mark.parametrize("of", ["a view", "a checkpoint"])
def test_frames_of_a_future_epoch_or_an_unknown_checkpoint_are_counted(of: str) -> None:
    node = nodes("a").node("a")
    if of == "a view":
        node.peer_frames.future_epoch_frames = [("b", Frame(Kind.COMMIT, 1, 99, 0, b""))] * 8_000
    else:
        for creation_id in range(1, 8_001):
            node._replicas.unknown_checkpoints.keep(
                node.directory, "b", Frame(Kind.COMMIT, (1 << 64) - creation_id, 1, 0, b"")
            )
    assert described(node, 0)["alarms"] == [["limits", "nearly full: early_frames 8000 of 10000"]]


def test_a_witness_reports_the_same() -> None:
    transport = Transport(limits=lambda: {"clients": (9, 10)})
    witness = Witness(Settings("w", peers=("a", "b"), witness=True), 1, b"", 0, 0, transport)
    told = described(witness, 0)
    assert told["limits"] == [["clients", 9, 10]]
    assert ["limits", "nearly full: clients 9 of 10"] in told["alarms"]
