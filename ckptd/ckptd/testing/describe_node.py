"""Ask a daemon with DESCRIBE, as any program may, without the client library."""

import os
import socket
from pathlib import Path
from typing import Final, Literal, overload

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import OK, code_name
from ckpt_protocol.descriptions import (
    CheckpointDescription,
    ClusterDescription,
    parse_checkpoint_descriptions,
    parse_cluster_description,
)
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.handshake import NONCE_BYTES, ROLE_OPERATOR, HandshakeRejected, Identity, Opener
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer
from ckptd.testing.errors import ClusterError

ASK_SECONDS: Final = 1.0


@overload
def describe(
    path: str | Path, what: Literal["cluster"] = "cluster", cluster: str = "", key: str = ""
) -> ClusterDescription: ...
@overload
def describe(
    path: str | Path, what: Literal["checkpoints"], cluster: str = "", key: str = ""
) -> tuple[CheckpointDescription, ...]: ...
def describe(path: str | Path, what: str = "cluster", cluster: str = "", key: str = "") -> object:
    """Ask the daemon at a unix socket about its "cluster" or its "checkpoints".

    Raises: OSError if no daemon answers, ClusterError if it refuses.
    """
    identity = Identity(cluster=cluster, key=key.encode())
    opener = Opener(identity, ROLE_OPERATOR, os.urandom(NONCE_BYTES))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ASK_SECONDS)
        connection.connect(str(path))
        decoder = FrameDecoder()
        connection.sendall(opener.hello())
        try:
            _, proof = opener.receive(_receive(connection, decoder))
            connection.sendall(proof + encode_frame(Kind.DESCRIBE, 1, 0, 1, pack_body([what])))
            code, payload, _, text = decode_answer(_receive(connection, decoder).body)
            if code != OK:
                raise ClusterError(f"{path}: {code_name(code)} {text}")
            if what == "cluster":
                return parse_cluster_description(payload)
            return parse_checkpoint_descriptions(payload)
        except (HandshakeRejected, FrameError) as error:
            raise ClusterError(f"{path}: {error}") from error


def _receive(connection: socket.socket, decoder: FrameDecoder) -> Frame:
    while True:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionResetError("the daemon closed the connection")
        frames = decoder.feed(chunk)
        if frames:
            return frames[0]
