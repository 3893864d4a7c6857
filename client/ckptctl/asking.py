"""DESCRIBE without a session.

A node that serves nothing yet answers it too, and says what it waits for.
"""

import secrets
import socket
from typing import Any

from ckpt_client.address import Address, choose_addresses, choose_key
from ckpt_client.blocking import connect_socket, failure_of
from ckpt_client.errors import error_of
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import Frame, FrameDecoder, FrameError, decode_datagram, encode_frame
from ckpt_protocol.greeting import NONCE_BYTES, ROLE_CLIENT, Identity, Opener, Refused
from ckpt_protocol.messages import Kind, decode_answer

RECEIVE_BYTES = 65536


def describe(address: str | None, what: str, timeout_s: float) -> Any:
    """What the first of the addresses that answers says of the "cluster" or its "checkpoints".

    Raises: SaAisError UNAVAILABLE when none does, else with the code of the refusal.
    """
    identity = Identity("", choose_key(None))
    failures = []
    for one in choose_addresses(address):
        try:
            return _ask(one, identity, what, timeout_s)
        except OSError as error:
            failures.append(f"{one}: {failure_of(error)[0]}")
        except FrameError as error:
            failures.append(f"{one}: this is no ckptd ({error})")
        except Refused as refused:
            raise error_of(refused.code, f"{one}: {refused.text}") from None
    raise error_of(
        codes.UNAVAILABLE,
        f"{'; '.join(failures)}. Start one with: ckptd --node-id a --listen 127.0.0.1:7301",
    )


def _ask(address: Address, identity: Identity, what: str, timeout_s: float) -> Any:
    with connect_socket(address, timeout_s) as connection:
        connection.settimeout(timeout_s)
        receiver = _Receiver(connection, address.datagram)
        opener = Opener(identity, ROLE_CLIENT, secrets.token_bytes(NONCE_BYTES))
        connection.sendall(opener.hello())
        _, proof = opener.receive(receiver.frame())
        if proof:
            connection.sendall(proof)
        connection.sendall(encode_frame(Kind.DESCRIBE, 1, 0, 1, pack_body([what])))
        code, payload, index, text = decode_answer(receiver.frame().body)
    if code != codes.OK:
        raise error_of(code, f"{address}: {text}", index)
    return payload


class _Receiver:
    """Frames from a stream or from datagrams, one after the other."""

    def __init__(self, connection: socket.socket, datagram: bool) -> None:
        self._connection = connection
        self._datagram = datagram
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    def frame(self) -> Frame:
        """The next frame. Raises: OSError, FrameError."""
        while not self._frames:
            received = self._connection.recv(RECEIVE_BYTES)
            if self._datagram:
                self._frames.append(decode_datagram(received))
            elif not received:
                raise ConnectionResetError("the connection was closed")
            else:
                self._frames += self._decoder.feed(received)
        return self._frames.pop(0)
