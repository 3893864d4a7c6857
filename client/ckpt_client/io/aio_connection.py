"""A session over one asyncio link, shared by all tables of a loop that name the same addresses.

The requests of many tasks are sent together: those made in one turn of the loop are written at once. A
cancelled task leaves the link as it was.
"""

import asyncio
import atexit
import contextlib
import os
import secrets
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.aio_links import MovingConnection, PresentLink, SecondLink
from ckpt_client.io.aio_transports import open_transport
from ckpt_client.io.blocking_connection import DETACH_NS
from ckpt_client.io.connecting import LARGE_BYTES, explain_failure, untaken_bytes
from ckpt_client.io.service_calls import AsyncServiceCalls
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.requests.table_requests import EMPTY_BODY
from ckpt_client.session import goodbyes
from ckpt_client.session.address import Address
from ckpt_client.session.affinity import endpoint_of
from ckpt_client.session.attachment import SessionState
from ckpt_client.session.call import NEVER_NS, Call
from ckpt_client.session.endpoints import Outlook
from ckpt_client.session.node_silence import PING_AFTER_NS
from ckpt_client.session.notices import Notices
from ckpt_client.session.session import Session
from ckpt_protocol import codes
from ckpt_protocol.handshake import NONCE_BYTES, Identity
from ckpt_protocol.messages import Kind

_SECOND_NS: Final = 1_000_000_000
_TIMER_SLACK_S: Final = 0.001
"""A loop's timers may fire a little early; a timer that did would only be set again."""

_monotonic_ns = time.monotonic_ns


class AsyncConnection(MovingConnection, AsyncServiceCalls):
    """A session with the service on the running loop; made by `shared` or `own`.

    Their arguments are those of `Connection`. Raises: SaAisError INVALID_PARAM.
    """

    def __init__(self, addresses: tuple[Address, ...], identity: Identity, follows: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._reached = addresses, identity, follows
        self._users = 0
        self._closing = False
        self._session = Session(secrets.randbits(62) + 1, addresses, identity, follows)
        self._session.keeps_up = True
        self._waiters: dict[int, Callable[[Call], None]] = {}
        self._link: PresentLink | None = None
        self._transport: asyncio.Transport | asyncio.DatagramTransport | None = None
        self._connector: asyncio.Task[None] | None = None
        self._mover: asyncio.Task[None] | None = None
        self._second: SecondLink | None = None
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = NEVER_NS
        self._untaken = 0
        self.notices = Notices()

    @classmethod
    def shared(
        cls,
        address: str | Iterable[str] | None = None,
        cluster: str = "",
        key: str | bytes | None = None,
        follow_active: bool | None = None,
    ) -> "AsyncConnection":
        """Return the running loop's connection to these addresses. Each call needs a matching `release`.

        Raises: SaAisError INVALID_PARAM.
        """
        addresses, identity, follows = endpoint_of(address, cluster, key, follow_active)
        for loop in [loop for loop in _connections if loop.is_closed()]:
            del _connections[loop]
        connections = _connections.setdefault(asyncio.get_running_loop(), {})
        place = (addresses, identity.cluster, identity.key, follows)
        connection = connections.get(place)
        if connection is None:
            connection = connections[place] = cls(addresses, identity, follows)
        connection._users += 1
        connection.renew()
        return connection

    @classmethod
    def own(
        cls,
        address: str | Iterable[str] | None = None,
        cluster: str = "",
        key: str | bytes | None = None,
        follow_active: bool | None = None,
    ) -> "AsyncConnection":
        """Return a connection that is not shared; one `release` (or `leave`) ends it.

        Raises: SaAisError INVALID_PARAM.
        """
        connection = cls(*endpoint_of(address, cluster, key, follow_active))
        connection._users = 1
        _unshared.add(connection)
        return connection

    def sibling(self) -> "AsyncConnection":
        """Return a connection to the same addresses, on the running loop, with a session of its own.

        One `release` (or `leave`) ends it.
        """
        connection = AsyncConnection(*self._reached)
        connection._users = 1
        _unshared.add(connection)
        return connection

    def renew(self) -> None:
        """Begin a new session if the current one has ended. What the old one had open is closed."""
        if self._session.state is SessionState.ENDED and self._users and not self._closing:
            self._session = self._session.successor(secrets.randbits(62) + 1)

    @property
    def usable(self) -> bool:
        """True if the connection belongs to the running loop and is not closed."""
        return bool(self._users) and asyncio.get_running_loop() is self._loop

    @property
    def moved(self) -> int:
        """How often the session was attached again, to another node or to the same one."""
        return self._session.moved

    @property
    def ended(self) -> bool:
        """True if the session has ended, with everything that it had open."""
        return self._session.state is SessionState.ENDED

    @property
    def next_number(self) -> int:
        """The number that the next request will have."""
        return self._session.next_number

    @property
    def session_id(self) -> int:
        """The session's number."""
        return self._session.session_id

    @property
    def is_shared(self) -> bool:
        """True if more than one table uses the connection, so that the session outlives the caller's."""
        return self._users > 1

    @property
    def node_id(self) -> str:
        """The node to which we are, or were last, connected; "" before the first call."""
        return self._session.node_id

    # -- calls

    async def call(self, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        """Make a request, wait, and return the answer's payload. Cancelling this only gives up the answer.

        Raises: SaAisError with the answer's code, or TIMEOUT, TRY_AGAIN, UNAVAILABLE when the time is over.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise error_of(codes.BAD_HANDLE, "the connection belongs to another event loop: open it here")
        future: asyncio.Future[None] = self._loop.create_future()

        def wake(_: Call) -> None:
            if not future.done():
                future.set_result(None)

        call = self.start(kind, handle, body, timeout_ns, wake)
        if not call.done:
            try:
                await future
            except BaseException:
                # The task was cancelled, or the coroutine was closed because it will not be run any more.
                self.give_up(call)
                raise
        if call.code != codes.OK:
            raise error_of(call.code, call.text, call.index, call.payload)
        return call.payload

    def start(
        self, kind: int, handle: int, body: bytes, timeout_ns: int, done: Callable[[Call], None]
    ) -> Call:
        """Make a request. `done` is called with the call when it ends, unless it has ended when this returns.

        Use this in the loop's thread only. Raises: SaAisError BAD_HANDLE once the connection is closed.
        """
        if not self._users:
            raise error_of(codes.BAD_HANDLE, "the connection is closed")
        session = self._session
        call = session.begin(kind, handle, body, _monotonic_ns(), timeout_ns)
        if call.done:
            self._pump()
            return call
        self._waiters[call.number] = done
        if (
            session.attached
            and session.outgoing
            and not self._flush_due
            and session.wake_ns >= self._timer_ns
        ):
            # The usual case: only write, together with the other requests of this turn of the loop.
            self._flush_due = True
            self._loop.call_soon(self._flush)
        else:
            self._pump()
        return call

    def give_up(self, call: Call) -> None:
        """Give up a call: its caller waits no longer."""
        self._waiters.pop(call.number, None)
        self._session.abandon(call, _monotonic_ns())
        if not self._loop.is_closed():
            self._pump()

    # -- the link's events

    def _link_received(self, link: PresentLink, data: bytes) -> None:
        if link is self._link:
            self._session.receive(data, _monotonic_ns())
        elif isinstance(link, SecondLink) and link is self._second:
            link.move.receive(data)
            self._advance_move(link)
        else:
            return
        self._pump()

    def _link_lost(self, link: PresentLink, error: Exception | None) -> None:
        why, outlook = explain_failure(error) if error else ("the daemon closed the connection", Outlook.OPEN)
        if isinstance(link, SecondLink) and link is self._second:
            link.move.fail(why)
            self._advance_move(link)
        if link is not self._link:
            return
        self._drop_transport()
        self._session.lose_link(_monotonic_ns(), why, outlook)
        self._pump()

    def _drop_transport(self) -> None:
        transport, self._transport, self._link = self._transport, None, None
        if transport is not None:
            transport.abort()

    def _flush(self) -> None:
        self._flush_due = False
        frames = self._session.outgoing
        transport = self._transport
        if not frames or transport is None:
            return
        if self._session.address.datagram:
            for frame in frames:
                cast(asyncio.DatagramTransport, transport).sendto(frame)
        else:
            stream = cast(asyncio.Transport, transport)
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            stream.write(data)
            if len(data) > LARGE_BYTES:
                self._untaken = self._untaken_bytes()
                self._watch_untaken()
        frames.clear()

    # -- after every step of the session

    def _pump(self) -> None:
        """Carry out what the session wants now: wake waiting tasks, write, connect, set the timer."""
        session = self._session
        completed = session.completed
        if completed:
            waiters = self._waiters
            ended = completed.copy()
            completed.clear()
            for call in ended:
                done = waiters.pop(call.number, None)
                if done is not None:
                    done(call)
        if session.notices:
            self.notices.tell_all(session.notices)
        if session.state in (SessionState.DISCONNECTED, SessionState.ENDED):
            self._drop_transport()
            if session.state is SessionState.DISCONNECTED and self._connector is None and self._needs_link():
                self._connector = self._loop.create_task(self._connect())
        elif session.outgoing and not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        if session.move is not None:
            if self._mover is None and self._transport is not None:
                self._mover = self._loop.create_task(self._make_move(session.move))
            elif self._second is not None and self._second.move is session.move:
                self._advance_move(self._second)
        if session.wake_ns < self._timer_ns:
            self._set_timer(session.wake_ns)
        self._watch_untaken()

    def _watch_untaken(self) -> None:
        """Have the progress of a large request checked: it may take longer than a node may be silent."""
        if self._untaken and self._timer_ns > (due_ns := _monotonic_ns() + PING_AFTER_NS):
            self._set_timer(due_ns)

    def _needs_link(self) -> bool:
        """Return True if the session needs a link.

        A session that was attached needs one even while there are no requests, since its grace time is short.
        """
        return bool(self._session.calls) or (not self._closing and self._session.was_attached)

    def _set_timer(self, wake_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = wake_ns
        delay_s = max(wake_ns - _monotonic_ns(), 0) / _SECOND_NS + _TIMER_SLACK_S
        self._timer = self._loop.call_later(delay_s, self._time_came)

    def _time_came(self) -> None:
        self._timer = None
        self._timer_ns = NEVER_NS
        now_ns = _monotonic_ns()
        if self._untaken:
            before, self._untaken = self._untaken, self._untaken_bytes()
            if self._untaken < before:
                self._session.drained(now_ns)
        self._session.advance(now_ns)
        self._pump()

    def _untaken_bytes(self) -> int:
        """Return how many bytes the node has not taken in yet; 0 if they are too few to mean anything."""
        if self._transport is None or self._session.address.datagram:
            return 0
        transport = cast(asyncio.Transport, self._transport)
        sock = transport.get_extra_info("socket")
        untaken = transport.get_write_buffer_size() + (untaken_bytes(sock) if sock is not None else 0)
        return untaken if untaken > LARGE_BYTES else 0

    async def _connect(self) -> None:
        """Try one address after the other until there is a link, or none is needed any more."""
        session = self._session
        try:
            while session.state is SessionState.DISCONNECTED and self._needs_link():
                pause_ns = session.connect_ns - _monotonic_ns()
                if pause_ns > 0:
                    await asyncio.sleep(pause_ns / _SECOND_NS)
                    continue
                link = PresentLink(self)
                try:
                    async with asyncio.timeout(session.connect_limit_ns / _SECOND_NS):
                        transport = await open_transport(self._loop, session.address, link)
                except TimeoutError:
                    session.lose_link(_monotonic_ns(), "no connection within the time limit")
                except (OSError, ValueError) as error:
                    session.lose_link(_monotonic_ns(), *explain_failure(error))
                else:
                    self._link, self._transport = link, transport
                    self._untaken = 0
                    session.open_link(secrets.token_bytes(NONCE_BYTES), _monotonic_ns())
                    return
                self._pump()
        finally:
            self._connector = None
            self._pump()

    # -- closing

    async def close_handle(self, handle: int, limit: TimeLimit) -> None:
        """Have the service close a handle. Raises: SaAisError.

        This does not wait at all while no node has the session, so that closing many tables in turn waits
        once. The session continues with a CLOSE that was not answered.
        """
        if self._session.state is SessionState.ATTACHED:
            await self.call(Kind.CLOSE, handle, EMPTY_BODY, limit.left_ns())
        else:
            self.give_up(self.start(Kind.CLOSE, handle, EMPTY_BODY, DETACH_NS, lambda call: None))

    async def release(self, limit: TimeLimit | None = None) -> None:
        """Stop using the connection; the last user ends the session, within the limit (None: DETACH_NS)."""
        if self._users > 1:
            self._users -= 1
            return
        self._unregister()
        if asyncio.get_running_loop() is not self._loop:
            # Touch nothing of a loop that we have left: its selector may be gone, or in another thread's use.
            self._users = 0
            return
        address = self._session.address
        limit = limit or TimeLimit(None, DETACH_NS)
        if limit.is_over or not goodbyes.is_worth_waiting(address, _monotonic_ns()):
            self.leave()
        try:
            if self._users and self._session.state is SessionState.ATTACHED:
                await self.call(Kind.DETACH, 0, EMPTY_BODY, limit.left_ns())
        except SaAisError as error:
            # The end of the session's grace time closes what the service has not closed now.
            if error.code == codes.TIMEOUT:
                goodbyes.note_unanswered(address, _monotonic_ns())
        except BaseException:
            self.leave()
            raise
        tasks = self._end()
        if tasks:
            await asyncio.wait(tasks)

    def leave(self) -> None:
        """Do what `release` does, but without waiting; for a task that is cancelled."""
        if self._users > 1:
            self._users -= 1
            return
        self._unregister()
        session, transport = self._session, self._transport
        if self._users and session.attached and transport is not None:
            session.outgoing[:] = session.goodbye()
            self._flush()
            # Unlike `abort`, this still sends what was written.
            transport.close()
            self._transport = self._link = None
        self._end()

    def leave_at_exit(self) -> None:
        """Say goodbye for a program that ends without closing its tables.

        Its loop has stopped, and its socket is closed before the process has ended. So the service could not
        know that the process is dead: everything it has open would stay open for the session's grace time.
        """
        session, transport = self._session, self._transport
        if not self._users or not session.attached or transport is None or self._loop.is_running():
            return
        sock = transport.get_extra_info("socket")
        if sock is None or transport.is_closing():
            return
        if isinstance(transport, asyncio.Transport) and transport.get_write_buffer_size():
            return  # The end of a frame was not sent yet: the node could not parse what follows.
        self._users = 0
        with contextlib.suppress(OSError):
            os.write(sock.fileno(), b"".join(session.goodbye()))

    def _unregister(self) -> None:
        """Take the connection out of the shared ones, since it is about to end."""
        self._closing = True
        connections = _connections.get(self._loop, {})
        for place in [place for place, connection in connections.items() if connection is self]:
            del connections[place]

    def _end(self) -> list[asyncio.Task[None]]:
        """End session, link, timer and tasks; return the tasks that have not noticed it yet."""
        self._users = 0
        self._session.end("the connection was closed")
        self._pump()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tasks = [task for task in (self._connector, self._mover) if task is not None]
        for task in tasks:
            task.cancel()
        return tasks

    def _after_fork(self) -> None:
        """In the child: let go of loop, link and session, which are the parent's, without closing them."""
        self._users = 0
        self._session.state = SessionState.ENDED
        _inherited_by_fork.append((self._transport, self._second, self._connector, self._mover))
        self._transport = self._link = self._second = self._connector = self._mover = None


_inherited_by_fork: list[Any] = []
"""Objects that the parent process still uses. The child must not finalise them: it shares the selector."""

_connections: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, AsyncConnection]]" = (
    weakref.WeakKeyDictionary()
)


_unshared: "weakref.WeakSet[AsyncConnection]" = weakref.WeakSet()


def _forget_parents() -> None:
    for connections in list(_connections.values()):
        for connection in connections.values():
            connection._after_fork()
    for connection in list(_unshared):
        connection._after_fork()
    _connections.clear()
    _unshared.clear()


def _leave_all() -> None:
    for connections in list(_connections.values()):
        for connection in list(connections.values()):
            connection.leave_at_exit()
    for connection in list(_unshared):
        connection.leave_at_exit()


os.register_at_fork(after_in_child=_forget_parents)
atexit.register(_leave_all)
