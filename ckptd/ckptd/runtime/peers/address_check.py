"""Asks who is at a peer's configured address, before a connection is accepted as that peer's (ADR 17).

Any process can open a connection and call itself node b. So the node that accepted the connection holds it,
opens a handshake of its own to b's address, and asks if b opened the other one. This module must not know
what a peer sends later.
"""

import asyncio
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.framing import FrameError, encode_frame
from ckpt_protocol.greeting import ROLE_CLIENT, Greeted, HandshakeRejected, Identity, parse_refused
from ckpt_protocol.messages import Kind
from ckptd.runtime.config.addresses import HostPort, SocketAddress
from ckptd.runtime.net.connecting import connect_stream
from ckptd.runtime.net.handshake import Greeter, cut_first_frame

ANSWER_LIMIT_S: Final = 1.0
"""How long a node may take to say who it is. It is longer than a pause for garbage collection."""

CLAIMS_MAX: Final = 8
"""Connections that may wait for the check, one for each host. With one more the oldest is refused."""


async def ask_who(identity: Identity, address: SocketAddress, family: int, about: bytes = b"") -> Greeted:
    """Return who answers at an address. `about` is the nonce of a handshake that it must have opened.

    Raises: HandshakeRejected; FrameError; OSError.
    """
    greeter = Greeter(identity, ROLE_CLIENT, lambda transport, greeted, rest: transport.abort(), about)
    sock = await connect_stream(address, family)
    try:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            await asyncio.get_running_loop().create_connection(lambda: greeter, sock=sock)
            return await greeter.outcome
    finally:
        greeter.give_up()


class Claim(asyncio.Protocol):
    """A connection whose other end claims to be a peer. We read nothing more until that is checked."""

    def __init__(self, transport: asyncio.Transport, greeted: Greeted, rest: bytes) -> None:
        self.transport = transport
        self.greeted = greeted
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

    def take(self) -> None:
        """Tell the other end that we accept the connection as the link."""
        self.transport.write(encode_frame(Kind.TAKEN, 0, 0, 0))

    def refuse(self, refused: HandshakeRejected) -> None:
        """Send the reason, and end the connection."""
        self.transport.write(refused.frame())
        self.transport.close()


class Untaken(asyncio.Protocol):
    """A connection that we opened to a peer, which asks back before it accepts the connection.

    `outcome` is set when the peer accepts. It raises HandshakeRejected, FrameError, or ConnectionError if the
    connection ended first. `rest`: the bytes received after that.
    """

    def __init__(self, transport: asyncio.Transport, greeted: Greeted, rest: bytes) -> None:
        self.transport = transport
        self.greeted = greeted
        self.rest = b""
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        transport.set_protocol(self)
        self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        self.rest += data
        if self.outcome.done():
            return
        try:
            frame, self.rest = cut_first_frame(self.rest)
            if frame is None:
                return
            if frame.kind == Kind.REFUSED:
                raise parse_refused(frame)
            if frame.kind != Kind.TAKEN:
                raise FrameError(f"a frame of kind {frame.kind} before TAKEN")
        except (HandshakeRejected, FrameError) as error:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(
                exc or ConnectionResetError("the connection ended before it was taken")
            )


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
            oldest.refuse(
                HandshakeRejected(codes.TRY_AGAIN, "too many connections say that they are this peer")
            )
        self._waiting[claim.origin] = claim

    def take(self) -> Claim | None:
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


def explain(
    node_id: str, host_port: HostPort, claim: Greeted, found: Greeted | Exception
) -> HandshakeRejected | None:
    """Return why a claim to be `node_id` is refused, given what was found at its address; None to accept."""
    match found:
        case Greeted() if found.node_id != node_id:
            why = f"node {found.node_id!r} answers there, and not node {node_id!r}"
        case Greeted() if found.incarnation != claim.incarnation:
            why = f"another start of node {node_id!r} answers there: two daemons have this node id"
        case Greeted():
            return None
        case HandshakeRejected() | FrameError():
            why = f"what answers there is not this daemon ({found})"
        case _:
            why = f"cannot be asked there: {found or 'no answer'}"
            return HandshakeRejected(
                codes.TRY_AGAIN, f"node {node_id!r} is expected at {host_port}, and {why}"
            )
    return HandshakeRejected(codes.EXIST, f"node {node_id!r} is expected at {host_port}, and {why}")
