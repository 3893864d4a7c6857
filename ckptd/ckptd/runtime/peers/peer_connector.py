"""Keeps the one link to a peer: dials or waits, and restores the link when it is lost.

The node with the smaller node id dials. The other one waits for that, and probes while the link is lost: it
connects only to see if the connection is refused, because that can prove that the peer's process is dead.
Fail-over depends on this: SIGKILL ends a link within milliseconds, and the probe, which follows *at once*,
takes less than one more.

We do not believe a connection that claims to be the peer. The peer is the daemon that answers at the peer's
configured address (`address_check`, ADR 17), and its name is looked up again for every such question.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.bounds_by_kind import FROM_PEER, FROM_WITNESS
from ckpt_protocol.errors import FrameError
from ckpt_protocol.handshake import ROLE_PEER, HandshakeRejected, PeerIdentity
from ckptd.core.events import Outranked, PeerConnected, PeerLost, PeerRefused, PeerTrouble
from ckptd.runtime.callback_containment import contained
from ckptd.runtime.clock import now_ns
from ckptd.runtime.config.addresses import HostPort, SocketAddress
from ckptd.runtime.driver import Driver
from ckptd.runtime.logs import logger
from ckptd.runtime.net.connecting import connect_stream
from ckptd.runtime.net.handshake import HANDSHAKE_LIMIT_S, OutgoingHandshake, new_nonce
from ckptd.runtime.net.heartbeat_secrets import HeartbeatSecrets
from ckptd.runtime.net.name_lookup import resolve
from ckptd.runtime.peers.address_check import explain, identify
from ckptd.runtime.peers.claims import Claim, Claims
from ckptd.runtime.peers.peer_context import PeerContext
from ckptd.runtime.peers.peer_link import PeerLink
from ckptd.runtime.peers.pending_link import PendingLink

TAKEN_LIMIT_S: Final = 6.0
"""How long the peer may take to ask back before it takes our link: a lookup, a connection and an answer."""

REFUSED_BACK_OFF_S: Final = 1.0
"""The pause before we dial a peer that refuses us again. The reason for a refusal rarely goes away sooner."""

BACK_OFF_MIN_S: Final = 0.005
BACK_OFF_MAX_S: Final = 0.25
PROBE_BACK_OFF_S: Final = 1.0
"""The pause between the probes of a waiting node, once the link has been lost for longer than this."""

STABLE_LINK_NS: Final = 200_000_000
"""A lost link is dialled again at once if it had lived for at least this long, but not if it failed right
after it came up. With a limit of one second, a node that died soon after its start was proved dead up to
250 ms late, because the back-off of the previous outage still applied."""

FAULT_PAUSE_S: Final = 1.0
"""The pause after an unexpected exception."""

IDENTIFY_PAUSE_S: Final = 0.02
"""The pause between two questions at a peer's address. It bounds how often connections that claim
to be the peer can make us ask."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class PeerConnector:
    """The link to one peer and what keeps it up. `run` runs as long as the daemon."""

    def __init__(self, node_id: str, address: HostPort, driver: Driver, context: PeerContext) -> None:
        self.node_id = node_id
        self.address = address
        self.is_dialer = context.identity.node_id < node_id
        self.link: PeerLink | None = None
        self.resolved: SocketAddress | None = None
        self.heartbeat_secrets = HeartbeatSecrets(context.identity.key)
        self._context = context
        self._identity = context.identity
        self._driver = driver
        self._limited_log = context.limited_log
        self._family = context.family
        self._confirmed_at: SocketAddress | None = None
        """The address at which the peer's known incarnation answered. A refusal at another address proves
        nothing about it."""

        self._nonce = b""
        self._was_rejected = False
        self._claims = Claims()
        self._recheck_requested = False
        self._check_requested = asyncio.Event()
        self._changed = asyncio.Event()
        self._since_ns = now_ns()
        """The time when the link came up, or when it was lost."""

        self._link_lifetime_ns = STABLE_LINK_NS

    # -- the link

    def check_claim(self, transport: asyncio.Transport, identity: PeerIdentity, rest: bytes) -> None:
        """Keep a connection that claims to be this peer's, and have the peer's address asked."""
        self._claims.add(Claim(transport, identity, rest))
        self._check_requested.set()

    def recheck(self) -> None:
        """Have the peer's address asked, because a message names an unknown incarnation of the peer."""
        self._recheck_requested = True
        self._check_requested.set()

    def _connect(
        self, transport: asyncio.Transport, identity: PeerIdentity, rest: bytes, address: SocketAddress
    ) -> None:
        """Make a new connection to the peer at `address` the link, in place of the present one."""
        self._supersede_link()
        self.resolved = self._confirmed_at = address
        self.heartbeat_secrets.agree(identity.secret)
        context = self._context
        link = PeerLink(
            transport,
            identity,
            FROM_WITNESS if self.node_id in context.witnesses else FROM_PEER,
            self._driver,
            context.counters,
            self._limited_log,
            context.buffer_bytes_max,
            self._on_lost,
            self._on_rejected,
        )
        transport.set_protocol(link)
        self.link = link
        self._since_ns = now_ns()
        self._driver.peers[self.node_id] = link
        self._changed.set()
        logger.debug("the connection to node %s is up", self.node_id)
        self._driver.handle(PeerConnected(self.node_id, identity.incarnation, identity.urls))
        if rest:
            link.data_received(rest)

    def refuse(self, incarnation: int) -> None:
        """End the link because we know a higher incarnation of this peer, and tell the peer which."""
        link = self.link
        if link is not None:
            link.send(
                HandshakeRejected(
                    codes.TRY_AGAIN, f"a later incarnation of node {self.node_id!r} is known", incarnation
                ).frame()
            )
            self._set_disconnected()
            link.close_gracefully()

    def _supersede_link(self) -> None:
        """End the link, if there is one, because another one replaces it."""
        if self.link is not None:
            self.link.supersede()
            self._set_disconnected()

    def _set_disconnected(self) -> None:
        self.link = None
        at_ns = now_ns()
        self._link_lifetime_ns, self._since_ns = at_ns - self._since_ns, at_ns
        self._driver.peers.pop(self.node_id, None)
        self._changed.set()
        logger.debug("the connection to node %s is lost", self.node_id)
        self._driver.handle(PeerLost(self.node_id))

    def _on_lost(self, link: PeerLink) -> None:
        if link is self.link:
            self._set_disconnected()

    def close(self) -> list[asyncio.Future[None]]:
        """End the link; the future is set when the bytes already written are sent."""
        self._claims.close()
        link, self.link = self.link, None
        return [] if link is None else [link.close_gracefully()]

    # -- restoring the link

    async def run(self) -> None:
        """Dial or probe while the link is lost, and check connections that claim to be the peer's."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_forever(self._maintain_link))
            tasks.create_task(self._run_forever(self._check_claims))

    async def _run_forever(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except Exception as error:  # (For example, a name that cannot be encoded.)
                contained(
                    self._context.counters, self._limited_log, f"the connection to node {self.node_id}", error
                )
                await asyncio.sleep(FAULT_PAUSE_S)

    async def _maintain_link(self) -> None:
        back_off_s = BACK_OFF_MIN_S
        while True:
            self._changed.clear()
            if self.link is not None:
                await self._changed.wait()
                if self._link_lifetime_ns >= STABLE_LINK_NS:
                    back_off_s = BACK_OFF_MIN_S
                elif self.link is None and self.is_dialer:
                    await asyncio.sleep(back_off_s)
                    back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)
                continue
            reached = await self._dial_or_probe()
            if self.link is not None:
                continue
            if not self.is_dialer:
                await self._pause(PROBE_BACK_OFF_S if self._is_long_lost() else self._context.heartbeat_s)
            elif self._was_rejected:
                await self._pause(REFUSED_BACK_OFF_S)
            elif not reached:
                await self._pause(back_off_s)
                back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)

    async def _pause(self, seconds: float) -> None:
        """Wait for `seconds`, or until the link changes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _is_long_lost(self) -> bool:
        return now_ns() - self._since_ns >= PROBE_BACK_OFF_S * 1e9

    async def _dial_or_probe(self) -> bool:
        """Dial or probe once. Return True if a probe reached the peer's address, or if the link is up.

        A node that waits for the peer to dial only probes at first, because it must see a refusal at once.
        Once the link has been lost for long it does the handshake too, and so learns why the peer does not
        dial.
        """
        self._was_rejected = False
        address = self.resolved
        try:
            if address is None:
                address = self.resolved = await resolve(self.address, self._family)
            sock = await connect_stream(address, self._family)
        except ConnectionRefusedError:
            self._on_connection_refused(address)
        except OSError as error:
            logger.debug("node %s at %s cannot be reached: %s", self.node_id, self.address, error)
        else:
            if not self.is_dialer and not self._is_long_lost():
                # Close with a reset, so that probes leave no connections in TIME_WAIT.
                with contextlib.closing(sock), contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                return True
            return await self._handshake(sock, address)
        if self.address.ip is None and self.link is None:
            # After a restart the name may have another address. We tried the last known one first.
            self.resolved = await self._resolve_again()
        return False

    def _on_connection_refused(self, address: SocketAddress | None) -> None:
        """Report a refused connection, unless the link is up or we met the peer at another address."""
        if self.link is None and self._confirmed_at in (None, address):
            self._driver.handle(PeerRefused(self.node_id))

    async def _resolve_again(self) -> SocketAddress | None:
        try:
            return await resolve(self.address, self._family)
        except OSError as error:
            text = f"{self.address.host} has no address: {error.strerror or error}"
            self._report_trouble(codes.TRY_AGAIN, text)
            self._limited_log.warn(f"name of {self.node_id}", f"node {self.node_id}: {text}")
            return self.resolved

    def _report_trouble(self, code: int, text: str) -> None:
        self._driver.handle(PeerTrouble(self.node_id, code, text))

    def _on_rejected(self, refused: HandshakeRejected) -> None:
        """Handle a refusal by the peer, or by what answers at its address."""
        if refused.incarnation:
            self._driver.handle(Outranked(self.node_id, refused.incarnation))
        elif refused.code != codes.BAD_OPERATION:  # (BAD_OPERATION only says that it is the peer that dials.)
            self._was_rejected = refused.code != codes.TRY_AGAIN
            self._report_trouble(refused.code, refused.text)
            self._limited_log.warn(
                f"refused by {self.node_id}",
                f"node {self.node_id} at {self.address} refused the connection of this node: {refused.text}",
            )

    async def _handshake(self, sock: socket.socket, address: SocketAddress) -> bool:
        opened = self._context.opened
        opened.pop(self._nonce, None)
        self._nonce = new_nonce()
        opened[self._nonce] = None

        pending: list[PendingLink] = []
        handshake = OutgoingHandshake(
            self._identity,
            ROLE_PEER,
            lambda *connection: pending.append(PendingLink(*connection)),
            nonce=self._nonce,
        )
        try:
            async with asyncio.timeout(HANDSHAKE_LIMIT_S):
                await asyncio.get_running_loop().create_connection(lambda: handshake, sock=sock)
                identity = await handshake.outcome
            if identity.node_id != self.node_id:
                raise HandshakeRejected(
                    codes.ACCESS, f"it is node {identity.node_id!r}, not {self.node_id!r}"
                )
            self.heartbeat_secrets.offer(identity.secret)
            async with asyncio.timeout(TAKEN_LIMIT_S):
                await pending[0].outcome
            self._connect(pending[0].transport, identity, pending[0].rest, address)
        except HandshakeRejected as error:
            self._on_rejected(error)
        except FrameError as error:
            self._on_rejected(HandshakeRejected(codes.ACCESS, f"it is not a ckptd: {error}"))
        except OSError as error:
            logger.debug("node %s at %s: %s", self.node_id, self.address, error)
        finally:
            handshake.cancel()
            if pending and self.link is None:
                pending[0].transport.abort()
        return self.link is not None

    # -- checking who is at the address

    async def _check_claims(self) -> None:
        """Check the connections that claim to be the peer's, one question at a time."""
        while True:
            await self._check_requested.wait()
            claim = self._claims.pop()
            if claim is not None:
                await self._decide_claim(claim)
            elif self._recheck_requested:
                self._recheck_requested = False
                await self._recheck_incarnation()
            else:
                self._check_requested.clear()
                continue
            await asyncio.sleep(IDENTIFY_PAUSE_S)

    async def _decide_claim(self, claim: Claim) -> None:
        """Take or refuse a connection, depending on what answers at the peer's address."""
        address, found = await self._identify(claim.identity.nonce)
        if claim.transport.is_closing():
            return
        refused = explain(self.node_id, self.address, claim.identity, found)
        if refused is not None or address is None:
            refused = refused or HandshakeRejected(codes.TRY_AGAIN, f"{self.address.host} has no address")
            self._context.counters.refused += 1
            self._limited_log.warn(f"claim {self.node_id}", f"a connection was refused: {refused.text}")
            self._report_trouble(
                codes.ACCESS,
                f"a daemon that claims to be {self.node_id!r} was refused: {refused.text}",
            )
            claim.refuse(refused)
        elif self.is_dialer:
            self._reject_call(claim)
        else:
            claim.accept()
            self._connect(claim.transport, claim.identity, claim.rest, address)
            claim.transport.resume_reading()

    def _reject_call(self, claim: Claim) -> None:
        """Handle a claim of a peer that we dial. It has no link, so ours, unless new, is half open."""
        me = self._identity.node_id
        claim.refuse(
            HandshakeRejected(
                codes.BAD_OPERATION, f"node {me!r} connects to node {self.node_id!r}, not the other way round"
            )
        )
        if self.link is not None and now_ns() - self._since_ns >= STABLE_LINK_NS:
            logger.warning("the connection to node %s is half open: replacing it", self.node_id)
            self._supersede_link()
        self._changed.set()

    async def _recheck_incarnation(self) -> None:
        if self.link is None:
            self._changed.set()  # Dial at once, or wait if it is the peer that dials.
            return
        link = self.link
        _, found = await self._identify()
        other = isinstance(found, PeerIdentity) and found.node_id == self.node_id
        if other and found.incarnation != link.identity.incarnation and self.link is link:  # type: ignore[union-attr]
            logger.warning("another incarnation of node %s answers at %s", self.node_id, self.address)
            self.resolved = None
            self._supersede_link()

    async def _identify(self, about: bytes = b"") -> tuple[SocketAddress | None, PeerIdentity | Exception]:
        """Look up the peer's address and ask who is there; return the address and the answer or error."""
        address = None
        try:
            address = await resolve(self.address, self._family)
            return address, await identify(self._identity, address, self._family, about)
        except ConnectionRefusedError as error:
            self._on_connection_refused(address)
            return address, error
        except (HandshakeRejected, FrameError, OSError) as error:
            return address, error
