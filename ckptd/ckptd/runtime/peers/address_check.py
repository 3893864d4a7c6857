"""Asks who is at a peer's configured address, before a connection is accepted as that peer's (ADR 17).

Any process can open a connection and call itself node b. So the node that accepted the connection keeps it
waiting (`claims`), opens a handshake of its own to b's address, and asks if b opened the other one. This
module must not know what a peer sends later.
"""

import asyncio
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.errors import FrameError
from ckpt_protocol.handshake import ROLE_CLIENT, HandshakeRejected, Identity, PeerIdentity
from ckptd.runtime.config.addresses import HostPort, SocketAddress
from ckptd.runtime.net.connecting import connect_stream
from ckptd.runtime.net.handshake import OutgoingHandshake

IDENTIFY_LIMIT_S: Final = 1.0
"""How long a node may take to say who it is. It is longer than a pause for garbage collection."""


async def identify(
    identity: Identity, address: SocketAddress, family: int, about: bytes = b""
) -> PeerIdentity:
    """Return who answers at an address. `about` is the nonce of a handshake that it must have opened.

    Raises: HandshakeRejected; FrameError; OSError.
    """
    handshake = OutgoingHandshake(
        identity, ROLE_CLIENT, lambda transport, identity, rest: transport.abort(), about
    )
    sock = await connect_stream(address, family)
    try:
        async with asyncio.timeout(IDENTIFY_LIMIT_S):
            await asyncio.get_running_loop().create_connection(lambda: handshake, sock=sock)
            return await handshake.outcome
    finally:
        handshake.cancel()


def explain(
    node_id: str, host_port: HostPort, claim: PeerIdentity, found: PeerIdentity | Exception
) -> HandshakeRejected | None:
    """Return why a claim to be `node_id` is refused, given what was found at its address; None to accept."""
    match found:
        case PeerIdentity() if found.node_id != node_id:
            why = f"node {found.node_id!r} answers there instead of node {node_id!r}"
        case PeerIdentity() if found.incarnation != claim.incarnation:
            why = f"another incarnation of node {node_id!r} answers there: two daemons have this node id"
        case PeerIdentity():
            return None
        case HandshakeRejected() | FrameError():
            why = f"what answers there is not this daemon ({found})"
        case _:
            why = f"asking there failed: {found or 'no answer'}"
            return HandshakeRejected(
                codes.TRY_AGAIN, f"node {node_id!r} is expected at {host_port}, but {why}"
            )
    return HandshakeRejected(codes.EXIST, f"node {node_id!r} is expected at {host_port}, but {why}")
