"""DESCRIBE and OPERATE: what a node answers without a session.

So it does also when it serves nothing yet, and says what it waits for.
"""

import secrets
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from ckpt_client.address import Address, choose_addresses, choose_key
from ckpt_client.connecting import connect_socket, failure_of
from ckpt_client.errors import SaAisError, error_of
from ckpt_protocol import codes
from ckpt_protocol.answers import decode_answer
from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import Frame, FrameDecoder, FrameError, decode_datagram, encode_frame
from ckpt_protocol.greeting import NONCE_BYTES, ROLE_CLIENT, Identity, Opener, Refused
from ckpt_protocol.messages import Kind

RECEIVE_BYTES = 65536
HOW_TO_START = "Start one with: ckptd --node-id a --listen 127.0.0.1:7301"


class Asked(NamedTuple):
    """A good answer, and who gave it. An incarnation is one start of a daemon."""

    node_id: str
    incarnation: int
    payload: Any


def describe(address: str | None, what: str, timeout_s: float) -> Any:
    """What the first of the addresses that answers says of the "cluster" or its "checkpoints".

    Raises: SaAisError UNAVAILABLE when none does, else with the code of the refusal.
    """
    return ask(choose_addresses(address), Kind.DESCRIBE, [what], timeout_s).payload


def describe_checkpoints(address: str | None, timeout_s: float) -> tuple[list[Any], str]:
    """The checkpoints as the first node knows them that serves; else those of the first that answers.

    The text is "" where the node serves; else it says what that node waits for. The rows are asked page by
    page, since all together may be more than one answer holds.

    Raises: SaAisError UNAVAILABLE when none answers, else with the code of the refusal.
    """
    addresses, doubt = choose_addresses(address), ""
    for one in addresses:
        try:
            told = ask([one], Kind.DESCRIBE, ["cluster"], timeout_s).payload
        except SaAisError:
            continue
        if told.get("serving"):
            addresses, doubt = (one,), ""
            break
        waits = told.get("waiting_for") or "no view yet"
        doubt = doubt or f"node {told.get('node_id', '?')} serves nothing; it waits for {waits}"
    rows: list[Any] = []
    after = 0
    while True:
        page = ask(addresses, Kind.DESCRIBE, ["checkpoints", after], timeout_s).payload
        # (A daemon that knows no pages says all of them each time.)
        page = [row for row in page if row[1] > after]
        if not page:
            return rows, doubt
        rows += page
        after = max(row[1] for row in page)


def ask(addresses: Sequence[Address], kind: int, fields: list[Any], timeout_s: float) -> Asked:
    """What the first of the addresses that answers says to a request without a session.

    Raises: SaAisError UNAVAILABLE when none does, else with the code of the refusal.
    """
    failures = []
    for one in addresses:
        try:
            return ask_one(one, kind, fields, timeout_s)
        except OSError as error:
            failures.append(f"{one}: {failure_of(error)[0]}")
        except FrameError as error:
            failures.append(f"{one}: this is no ckptd ({error})")
    raise error_of(codes.UNAVAILABLE, f"{'; '.join(failures)}. {HOW_TO_START}")


def ask_one(address: Address, kind: int, fields: list[Any], timeout_s: float) -> Asked:
    """What the node at an address says.

    Raises: SaAisError with the code of a refusal; OSError, FrameError where nobody answers, or no ckptd.
    """
    until_s = time.monotonic() + timeout_s
    with connect_socket(address, timeout_s) as connection:
        receiver = _Receiver(connection, address.datagram, until_s)
        opener = Opener(Identity("", choose_key(None)), ROLE_CLIENT, secrets.token_bytes(NONCE_BYTES))
        connection.settimeout(timeout_s)
        connection.sendall(opener.hello())
        try:
            greeted, proof = opener.receive(receiver.frame())
        except Refused as refused:
            raise error_of(refused.code, f"{address}: {refused.text}") from None
        if proof:
            connection.sendall(proof)
        connection.sendall(encode_frame(kind, 1, 0, 1, pack_body(fields)))
        answer = receiver.frame()
    if answer.kind == Kind.REFUSED:
        # The proof of a wrong key is answered with it.
        raise error_of(answer.a, f"{address}: the node refused us (a wrong cluster key?)")
    code, payload, index, text = decode_answer(answer.body)
    if code == codes.TOO_BIG and address.datagram:
        return ask_one(Address("tcp", address.host, address.port), kind, fields, timeout_s)
    if code != codes.OK:
        raise error_of(code, f"{address}: {text}", index)
    return Asked(greeted.node_id, greeted.incarnation, payload)


class _Receiver:
    """Frames from a stream or from datagrams, one after the other, until a time on the monotonic clock."""

    def __init__(self, connection: socket.socket, datagram: bool, until_s: float) -> None:
        self._connection = connection
        self._datagram = datagram
        self._until_s = until_s
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    def frame(self) -> Frame:
        """The next frame. Raises: OSError, FrameError."""
        while not self._frames:
            left_s = self._until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("no answer within the time-out")
            self._connection.settimeout(left_s)
            received = self._connection.recv(RECEIVE_BYTES)
            if self._datagram:
                self._frames.append(decode_datagram(received))
            elif not received:
                raise ConnectionResetError("the connection was closed")
            else:
                self._frames += self._decoder.feed(received)
        return self._frames.pop(0)
