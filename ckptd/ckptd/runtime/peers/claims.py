"""Accepted connections whose other end claims to be a peer, until that is checked (ADR 17)."""

import asyncio
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.handshake import HandshakeRejected, PeerIdentity
from ckpt_protocol.messages import Kind

CLAIMS_MAX: Final = 8
"""Connections that may wait for the check, one for each host. With one more the oldest is refused."""


class Claim(asyncio.Protocol):
    """A connection whose other end claims to be a peer. We read nothing more until that is checked."""

    def __init__(self, transport: asyncio.Transport, identity: PeerIdentity, rest: bytes) -> None:
        self.transport = transport
        self.identity = identity
        self.rest = rest
        transport.set_protocol(self)
        transport.pause_reading()

    @property
    def origin(self) -> str:
        """The host that the connection comes from."""
        name = self.transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    def data_received(self, data: bytes) -> None:
        self.rest += data

    def accept(self) -> None:
        """Tell the other end that we accept the connection as the link."""
        self.transport.write(encode_frame(Kind.TAKEN, 0, 0, 0))

    def refuse(self, refused: HandshakeRejected) -> None:
        """Send the reason, and end the connection."""
        self.transport.write(refused.frame())
        self.transport.close()


class Claims:
    """The claims that wait to be checked, oldest first, at most one for each host."""

    def __init__(self) -> None:
        self._waiting: dict[str, Claim] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, claim: Claim) -> None:
        """Queue a claim. It replaces an earlier one of the same host, which its opener has given up."""
        earlier = self._waiting.pop(claim.origin, None)
        if earlier is not None:
            earlier.transport.abort()
        while len(self._waiting) >= CLAIMS_MAX:
            oldest = self._waiting.pop(next(iter(self._waiting)))
            oldest.refuse(HandshakeRejected(codes.TRY_AGAIN, "too many connections claim to be this peer"))
        self._waiting[claim.origin] = claim

    def pop(self) -> Claim | None:
        """Remove and return the oldest claim whose connection is still open; None if there is none."""
        while self._waiting:
            claim = self._waiting.pop(next(iter(self._waiting)))
            if not claim.transport.is_closing():
                return claim
        return None

    def close(self) -> None:
        """End the connections of all claims that wait."""
        for claim in self._waiting.values():
            claim.transport.abort()
        self._waiting.clear()
