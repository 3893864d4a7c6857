"""Asks the peers, before this node joins them, if they are in the same cluster."""

import asyncio
import socket
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.errors import FrameError
from ckpt_protocol.handshake import HandshakeRejected, Identity
from ckptd.runtime.config.addresses import HostPort
from ckptd.runtime.errors import StartError
from ckptd.runtime.logs import logger
from ckptd.runtime.net.name_lookup import resolve
from ckptd.runtime.peers.address_check import identify

ANSWER_LIMIT_S: Final = 0.3
"""We do not wait longer for a peer, as it may be down and this node must start all the same."""


async def check_own_address(node_id: str, peers: dict[str, HostPort], stream: socket.socket) -> None:
    """Refuse to start if a peer's address is the one that this node listens on.

    All nodes of a cluster may use the same file. A node with a wrong node id that is not in the file would
    count as one more voter, and the node that it should be would never come up. Raises: StartError.
    """
    ours = stream.getsockname()

    async def is_ours(host_port: HostPort) -> bool:
        if host_port.port != ours[1]:
            return False
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                address = await resolve(host_port, stream.family)
        except OSError:
            return False
        if not HostPort(str(ours[0]), 0).is_wildcard:
            return bool(address[0] == ours[0])
        with socket.socket(stream.family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address[0], 0, *address[2:]))  # Only an address of this host can be bound.
            except OSError:
                return False
        return True

    answers = await asyncio.gather(*(is_ours(address) for address in peers.values()))
    for (peer, address), found in zip(peers.items(), answers, strict=True):
        if found:
            raise StartError(
                f"peers gives node {peer!r} the address {address}, which is the address of this node, "
                f"{node_id!r}: correct the node id or the address"
            )


async def check_cluster(identity: Identity, peers: dict[str, HostPort], family: int) -> None:
    """Do a handshake with every peer that is up.

    If only some of them refuse us, we take them to be wrong, and log it. Raises: StartError if every peer
    that answered says that we are in another cluster, have another key or speak another protocol.
    """
    anonymous = Identity(identity.cluster, identity.key)
    answers = await asyncio.gather(*(_refusal_of(anonymous, address, family) for address in peers.values()))
    refusals = [
        f"node {node_id} at {address} is not in this cluster: {answer}"
        for (node_id, address), answer in zip(peers.items(), answers, strict=True)
        if answer
    ]
    if refusals and "" not in answers:
        raise StartError("; ".join(refusals))
    for refusal in refusals:
        logger.warning("%s", refusal)


async def _refusal_of(identity: Identity, address: HostPort, family: int) -> str | None:
    """Return "" if the peer agrees, the reason if it does not, None if it does not answer."""
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            await identify(identity, await resolve(address, family), family)
    except HandshakeRejected as error:
        return error.text if error.code in (codes.ACCESS, codes.VERSION) else None
    except FrameError:
        return "it is not a ckptd"
    except Exception as error:
        # Mostly an OSError: no peer is there. The connector will report anything else repeatedly.
        logger.debug("cannot check %s: %s", address, error)
        return None
    return ""
