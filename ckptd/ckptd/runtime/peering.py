"""One peer: the one link to it, and what we do to get it back.

The node with the smaller node id dials. The other one waits, and while the link is lost
it probes: it connects only to learn whether that is refused, since a refused connection
can prove that the peer's process is dead. Fail-over hinges on this: SIGKILL ends a link
within milliseconds, and the probe that follows *at once* takes less than one more.
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Final

from ckpt_protocol.framing import FrameError
from ckpt_protocol.greeting import ROLE_PEER, Greeted, Identity, Refused
from ckptd.core.events import PeerConnected, PeerLost, PeerRefused
from ckptd.runtime.addresses import HostPort, SocketAddress, address_query
from ckptd.runtime.boundary import contained
from ckptd.runtime.clock import now_ns
from ckptd.runtime.counts import Counts
from ckptd.runtime.driver import Driver
from ckptd.runtime.first_exchange import FIRST_EXCHANGE_LIMIT_S, Greeter
from ckptd.runtime.logs import Seldom, logger
from ckptd.runtime.peer_link import PeerLink

CONNECT_LIMIT_S: Final = 1.0
"""A SYN that is lost is sent again after a second anyway; a cut that heals is noticed within this."""

BACK_OFF_MIN_S: Final = 0.005
BACK_OFF_MAX_S: Final = 0.25
PROBE_BACK_OFF_S: Final = 1.0
"""How often a waiting node probes once the link is lost for longer than this."""

STEADY_NS: Final = 200_000_000
"""A link that lived for so long is dialled again at once; one that fails at birth is not. At a second a node
that died soon after its start was proved dead up to 250 ms late, by the back-off of the outage before."""

KEEP_AGAIN_S: Final = 1.0
"""After an exception that nobody expected."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


async def resolve(host_port: HostPort, family: int) -> SocketAddress:
    """An address of a peer that a socket of `family` can use. Raises: OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(**address_query(host_port, family))
    address: SocketAddress = found[0][4]
    return address


async def connect_stream(address: SocketAddress, family: int) -> socket.socket:
    """A connected TCP socket. Raises: ConnectionRefusedError; OSError; TimeoutError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(CONNECT_LIMIT_S):
            await asyncio.get_running_loop().sock_connect(sock, address)
        # A port of the ephemeral range can connect to itself when nobody listens there.
        if sock.getsockname() == sock.getpeername():
            raise ConnectionRefusedError(f"only we ourselves are at {address}")
    except BaseException:
        sock.close()
        raise
    return sock


@dataclass(slots=True, frozen=True)
class Surroundings:
    """What all peerings of a node share."""

    identity: Identity
    driver: Driver
    counts: Counts
    seldom: Seldom
    heartbeat_s: float
    buffer_bytes_max: int
    family: int
    """Of our own sockets, AF_INET or AF_INET6."""


class Peering:
    """Our tie to one peer. `keep` runs as long as the daemon."""

    def __init__(self, node_id: str, address: HostPort, surroundings: Surroundings) -> None:
        self.node_id = node_id
        self.address = address
        self.dials = surroundings.identity.node_id < node_id
        self.link: PeerLink | None = None
        self.resolved: SocketAddress | None = None
        self._surroundings = surroundings
        self._identity = surroundings.identity
        self._driver = surroundings.driver
        self._seldom = surroundings.seldom
        self._family = surroundings.family
        self._changed = asyncio.Event()
        self._since_ns = now_ns()
        """When the link came up, or went."""
        self._lived_ns = STEADY_NS

    # -- the link

    def connect(self, transport: asyncio.Transport, greeted: Greeted, rest: bytes) -> None:
        """Take a new connection; it replaces the one there is."""
        old, self.link = self.link, None
        if old is not None:
            old.replace()
            self._driver.peers.pop(self.node_id, None)
            self._driver.handle(PeerLost(self.node_id))
        around = self._surroundings
        link = PeerLink(
            transport, greeted, self._driver, around.counts, self._seldom, around.buffer_bytes_max, self._lost
        )
        transport.set_protocol(link)
        self.link = link
        self._since_ns = now_ns()
        self._driver.peers[self.node_id] = link
        self._changed.set()
        logger.debug("the link to node %s is up", self.node_id)
        self._driver.handle(PeerConnected(self.node_id, greeted.incarnation, greeted.urls))
        if rest:
            link.data_received(rest)

    def _lost(self, link: PeerLink) -> None:
        if link is not self.link:
            return
        self.link = None
        at_ns = now_ns()
        self._lived_ns, self._since_ns = at_ns - self._since_ns, at_ns
        self._driver.peers.pop(self.node_id, None)
        self._changed.set()
        logger.debug("the link to node %s is lost", self.node_id)
        self._driver.handle(PeerLost(self.node_id))

    def close(self) -> list[asyncio.Future[None]]:
        """End the link; the future is set when what was written has gone out."""
        link, self.link = self.link, None
        return [] if link is None else [link.end()]

    # -- getting it back

    async def keep(self) -> None:
        """Dial or probe whenever the link is lost."""
        while True:
            try:
                await self._keep()
            except Exception as error:  # (A name that cannot be encoded, say.)
                contained(self._surroundings.counts, self._seldom, f"the tie to node {self.node_id}", error)
                await asyncio.sleep(KEEP_AGAIN_S)

    async def _keep(self) -> None:
        back_off_s = BACK_OFF_MIN_S
        while True:
            self._changed.clear()
            if self.link is not None:
                await self._changed.wait()
                if self._lived_ns >= STEADY_NS:
                    back_off_s = BACK_OFF_MIN_S
                elif self.link is None and self.dials:
                    await asyncio.sleep(back_off_s)
                    back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)
                continue
            reached = await self._attempt()
            if self.link is not None:
                continue
            if not self.dials:
                lost_s = (now_ns() - self._since_ns) / 1e9
                await self._pause(
                    self._surroundings.heartbeat_s if lost_s < PROBE_BACK_OFF_S else PROBE_BACK_OFF_S
                )
            elif not reached:
                await self._pause(back_off_s)
                back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until the link changes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _attempt(self) -> bool:
        """Dial or probe once; whether the peer (or something in its place) was reached."""
        try:
            if self.resolved is None:
                self.resolved = await resolve(self.address, self._family)
            sock = await connect_stream(self.resolved, self._family)
        except ConnectionRefusedError:
            if self.link is None:
                self._driver.handle(PeerRefused(self.node_id))
        except OSError as error:
            logger.debug("node %s at %s cannot be reached: %s", self.node_id, self.address, error)
        else:
            if not self.dials:
                # A reset leaves no connection in TIME_WAIT behind for each probe.
                with contextlib.closing(sock), contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                return True
            return await self._greet(sock)
        if self.address.ip is None:
            # A name may stand for another address after a restart, but the last one was asked first.
            self.resolved = await self._resolve_again()
        return False

    async def _resolve_again(self) -> SocketAddress | None:
        try:
            return await resolve(self.address, self._family)
        except OSError as error:
            self._seldom.warn(
                "peer name", f"node {self.node_id}: {self.address.host} has no address: {error.strerror}"
            )
            return self.resolved

    async def _greet(self, sock: socket.socket) -> bool:
        greeter = Greeter(self._identity, ROLE_PEER, self._taken)
        try:
            async with asyncio.timeout(FIRST_EXCHANGE_LIMIT_S):
                await asyncio.get_running_loop().create_connection(lambda: greeter, sock=sock)
                await greeter.outcome
        except (Refused, FrameError) as error:
            self._seldom.warn(
                f"greeting {self.node_id}",
                f"node {self.node_id} at {self.address} is not in our cluster: {error}",
            )
            return False
        except OSError as error:
            logger.debug("node %s at %s: %s", self.node_id, self.address, error)
            return False
        except Exception as error:
            contained(self._surroundings.counts, self._seldom, f"the greeting of node {self.node_id}", error)
            return False
        finally:
            greeter.give_up()
        return self.link is not None

    def _taken(self, transport: asyncio.Transport, greeted: Greeted, rest: bytes) -> None:
        if greeted.node_id == self.node_id:
            self.connect(transport, greeted, rest)
            return
        transport.abort()
        self._seldom.warn(
            f"greeting {self.node_id}", f"{self.address} is node {greeted.node_id!r}, not {self.node_id!r}"
        )
