"""DESCRIBE and OPERATE: requests that a node answers without a session.

A node answers them even when it does not serve yet; it then says what it waits for.
"""

import secrets
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.connecting import connect_socket, explain_failure
from ckpt_client.requests.table_requests import raise_malformed
from ckpt_client.session.address import Address
from ckpt_client.session.endpoints import advice_on
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.descriptions import (
    CheckpointDescription,
    ClusterDescription,
    parse_checkpoint_descriptions,
    parse_cluster_description,
)
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.handshake import NONCE_BYTES, ROLE_OPERATOR, HandshakeRejected, Opener, parse_refused
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer
from ckptctl.settings import Access

RECEIVE_BYTES = 65536


class NodeAnswer(NamedTuple):
    """A good answer, and the node that gave it."""

    node_id: str
    incarnation: int
    """The start of the daemon: it has a new incarnation each time."""
    payload: Any


def describe_cluster(access: Access) -> ClusterDescription:
    """Return the cluster as the first node that answers sees it.

    Raises: SaAisError UNAVAILABLE if none answers, else with the code of the refusal.
    """
    return cluster_in(request(access, access.addresses, Kind.DESCRIBE, ["cluster"]))


def cluster_in(answer: NodeAnswer) -> ClusterDescription:
    """Return the answer to DESCRIBE "cluster". Raises: SaAisError LIBRARY if it is none."""
    try:
        return parse_cluster_description(answer.payload)
    except FrameError:
        raise_malformed("DESCRIBE")


def describe_checkpoints(access: Access) -> tuple[list[CheckpointDescription], str]:
    """Return the checkpoints as the first serving node knows them, else as the first node that answers does.

    The text is "" if the node serves; otherwise it says what that node waits for. They are read page by page,
    since all of them may be too many for one answer.

    Raises: SaAisError UNAVAILABLE if none answers, else with the code of the refusal.
    """
    addresses, doubt = access.addresses, ""
    for one in addresses:
        try:
            cluster = cluster_in(request(access, [one], Kind.DESCRIBE, ["cluster"]))
        except SaAisError:
            continue
        if cluster.serving:
            addresses, doubt = (one,), ""
            break
        waits = cluster.waiting_for or "no view yet"
        doubt = doubt or f"node {cluster.node_id or '?'} serves nothing; it waits for {waits}"
    found: list[CheckpointDescription] = []
    after = 0
    while True:
        page = _checkpoints_in(request(access, addresses, Kind.DESCRIBE, ["checkpoints", after]))
        # (A daemon that does not know pages sends all checkpoints each time.)
        page = [each for each in page if each.creation_id > after]
        if not page:
            return found, doubt
        found += page
        after = max(each.creation_id for each in page)


def _checkpoints_in(answer: NodeAnswer) -> Sequence[CheckpointDescription]:
    try:
        return parse_checkpoint_descriptions(answer.payload)
    except FrameError:
        raise_malformed("DESCRIBE")


def request(access: Access, addresses: Sequence[Address], kind: int, fields: list[Any]) -> NodeAnswer:
    """Make a request without a session; return the answer of the first address that answers.

    Raises: SaAisError UNAVAILABLE if none answers, else with the code of the refusal.
    """
    failures: dict[Address, str] = {}
    for one in addresses:
        try:
            return request_from(access, one, kind, fields, access.timeout)
        except OSError as error:
            failures[one] = explain_failure(error)[0]
        except FrameError as error:
            failures[one] = f"this is not a ckptd ({error})"
    texts = [f"{one}: {why}" for one, why in failures.items()]
    raise error_of(codes.UNAVAILABLE, "; ".join(filter(None, (*texts, advice_on(failures.values())))))


def request_from(
    access: Access, address: Address, kind: int, fields: list[Any], timeout_s: float
) -> NodeAnswer:
    """Make a request to the node at an address; return its answer. A udp address is asked over TCP.

    (With UDP nothing shows that a daemon has gone.) Raises: SaAisError with the code of a refusal; OSError if
    no daemon answers, FrameError if what answers is no ckptd.
    """
    until_s = time.monotonic() + timeout_s
    if address.datagram:
        address = Address("tcp", address.host, address.port)
    with connect_socket(address, timeout_s) as connection:
        receiver = _FrameReceiver(connection, until_s)
        opener = Opener(access.identity, ROLE_OPERATOR, secrets.token_bytes(NONCE_BYTES))
        connection.settimeout(timeout_s)
        connection.sendall(opener.hello())
        try:
            peer, proof = opener.receive(receiver.frame())
        except HandshakeRejected as refused:
            raise error_of(refused.code, f"{address}: {refused.text}") from None
        if proof:
            connection.sendall(proof)
        connection.sendall(encode_frame(kind, 1, 0, 1, pack_body(fields)))
        answer = receiver.frame()
    if answer.kind == Kind.REFUSED:
        # The node answers so if our key is wrong, or if it has too many clients.
        raise error_of(answer.a, f"{address}: the node refused this client: {parse_refused(answer).text}")
    code, payload, index, text = decode_answer(answer.body)
    if code != codes.OK:
        raise error_of(code, f"{address}: {text}", index)
    return NodeAnswer(peer.node_id, peer.incarnation, payload)


class _FrameReceiver:
    """Receives frames from a stream, one after the other, until a time on the monotonic clock."""

    def __init__(self, connection: socket.socket, until_s: float) -> None:
        self._connection = connection
        self._until_s = until_s
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    def frame(self) -> Frame:
        """Return the next frame. Raises: OSError, FrameError."""
        while not self._frames:
            left_s = self._until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("no answer within the time-out")
            self._connection.settimeout(left_s)
            received = self._connection.recv(RECEIVE_BYTES)
            if not received:
                raise ConnectionResetError("the connection was closed")
            self._frames += self._decoder.feed(received)
        return self._frames.pop(0)
