"""The links of an asyncio session: the current one, and the second one of a move to another node."""

import asyncio
import secrets
import time
from typing import Any, Final, cast

from ckpt_client.io.aio_transports import Link, open_transport
from ckpt_client.io.connecting import explain_failure
from ckpt_client.session.planned_move import MOVE_LIMIT_NS, PlannedMove
from ckpt_client.session.session import Session
from ckpt_protocol.handshake import NONCE_BYTES

_SECOND_NS: Final = 1_000_000_000
_monotonic_ns = time.monotonic_ns


class PresentLink(Link):
    """Passes one transport's events to the connection, which ignores them unless it uses this link."""

    def __init__(self, connection: "MovingConnection") -> None:
        self._connection = connection

    def data_received(self, data: bytes) -> None:
        self._connection._link_received(self, data)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._connection._link_received(self, data)

    def error_received(self, exc: Exception) -> None:
        self._connection._link_lost(self, exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection._link_lost(self, exc)


class SecondLink(PresentLink):
    """The link of a move, next to the current one."""

    def __init__(self, connection: "MovingConnection", move: PlannedMove) -> None:
        super().__init__(connection)
        self.move = move
        self.transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the move is no longer under way."""


class MovingConnection:
    """The part of `AsyncConnection` that moves its session to another link."""

    _loop: asyncio.AbstractEventLoop
    _session: Session
    _link: PresentLink | None
    _transport: asyncio.Transport | asyncio.DatagramTransport | None
    _mover: asyncio.Task[None] | None
    _second: SecondLink | None
    _untaken: int

    # -- a move to another node, or to a stream

    async def _make_move(self, move: PlannedMove) -> None:
        """Open the second link that the session wants, and wait until the move has ended."""
        second = self._second = SecondLink(self, move)
        try:
            async with asyncio.timeout(MOVE_LIMIT_NS / _SECOND_NS):
                transport = await open_transport(self._loop, move.address, second)
                second.transport = cast(asyncio.Transport, transport)
                move.open(secrets.token_bytes(NONCE_BYTES))
                self._advance_move(second)
                await second.ended
        except TimeoutError:
            move.fail("it does not accept the session within the time limit")
        except (OSError, ValueError) as error:
            move.fail(explain_failure(error)[0])
        finally:
            move.fail("the migration was cancelled")
            self._advance_move(second)
            self._mover = None
            self._pump()

    def _advance_move(self, second: SecondLink) -> None:
        """Send what the move wants to send. When it has ended, switch to its link or drop it."""
        move, transport = second.move, second.transport
        if move is self._session.move:
            self._session.advance_move(_monotonic_ns())
        if move.under_way:
            if transport is not None and move.outgoing:
                transport.write(b"".join(move.outgoing))
                move.outgoing.clear()
            return
        if second is not self._second:
            return
        self._second = None
        if self._session.finish_move(move, _monotonic_ns()) and transport is not None:
            self._drop_transport()
            self._link, self._transport = second, transport
            self._untaken = 0
        elif transport is not None:
            transport.abort()
        if not second.ended.done():
            second.ended.set_result(None)

    # -- implemented by `AsyncConnection`

    def _link_received(self, link: PresentLink, data: bytes) -> None:
        raise NotImplementedError

    def _link_lost(self, link: PresentLink, error: Exception | None) -> None:
        raise NotImplementedError

    def _drop_transport(self) -> None:
        raise NotImplementedError

    def _pump(self) -> None:
        raise NotImplementedError
