"""A session over one blocking socket: no event loop, no thread, and few system calls.

The usual call takes one send, one poll and one receive. Several threads may call. They take turns, so that a
single caller pays for nothing but the lock. After a fork the child has a session and a socket of its own.
"""

import atexit
import contextlib
import os
import secrets
import select
import socket
import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any, Final

from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.connecting import LARGE_BYTES, connect_socket, explain_failure, untaken_bytes
from ckpt_client.io.service_calls import ServiceCalls
from ckpt_client.requests.table_requests import EMPTY_BODY
from ckpt_client.session import goodbyes
from ckpt_client.session.affinity import endpoint_of
from ckpt_client.session.attachment import SessionState
from ckpt_client.session.call import Call
from ckpt_client.session.endpoints import Outlook
from ckpt_client.session.node_silence import DEAD_AFTER_NS, PING_AFTER_NS
from ckpt_client.session.notices import Notices
from ckpt_client.session.planned_move import MOVE_LIMIT_NS, MOVE_QUIESCE_NS, MoveState, PlannedMove
from ckpt_client.session.session import Session
from ckpt_protocol import codes
from ckpt_protocol.framing import HEADER, HEADER_BYTES, LENGTH_BYTES, Frame
from ckpt_protocol.handshake import NONCE_BYTES
from ckpt_protocol.limits import FRAME_BYTES_MAX
from ckpt_protocol.messages import Kind

DETACH_NS: Final = DEAD_AFTER_NS
"""How long `close` waits for the service's answer. If none comes, the end of the grace closes everything."""

LEAVE_S: Final = 0.2
"""How long a program that ends waits for the calls of its other threads before it says goodbye."""

_RECEIVE_BYTES: Final = 65536
"""The most that one receive asks for; a larger frame is received into a buffer of its own size."""

_MOVE_CALL_NS: Final = 4 * MOVE_LIMIT_NS
"""A call with a shorter time-out is not delayed by a move to another node, which it does not need."""

_SIMPLE_BYTES_MAX: Final = 32768
"""A larger request is sent in pieces, each within the call's time-out."""

_SECOND_NS, _MILLISECOND_NS = 1_000_000_000, 1_000_000
_DONT_WAIT: Final = socket.MSG_DONTWAIT
_monotonic_ns, _get_ident = time.monotonic_ns, threading.get_ident


class Connection(ServiceCalls):
    """A session with the service, and the calls that concern no open table.

    * `address`: a URL, several separated by commas, or a list. None takes `CKPTD_ADDRESS`, else the local
      daemon's socket.
    * `cluster`: the cluster's name, "" for any.
    * `key`: the cluster's key. None takes `CKPTD_KEY`.
    * `follow_active`: whether the session moves to the node whose replica orders its updates. None means
      that it does if several addresses are given (see `affinity`).
    * `waits`: whether a call waits, within its time-out, until a daemon listens at an address.

    Nothing is sent before the first call.

    Raises: SaAisError INVALID_PARAM.
    """

    def __init__(
        self,
        address: str | Iterable[str] | None = None,
        cluster: str = "",
        key: str | bytes | None = None,
        follow_active: bool | None = None,
        waits: bool = True,
    ) -> None:
        self._reached = endpoint_of(address, cluster, key, follow_active)
        self._waits = waits
        self._start()
        _connections.add(self)

    def _start(self) -> None:
        # We never re-enter it. But if a signal comes while we take it, `release` tells us whether we have it.
        self._lock = threading.RLock()
        self._owner_thread = 0
        self._consistent = True
        self._session = Session(secrets.randbits(62) + 1, *self._reached, self._waits)
        self._socket: socket.socket | None = None
        self._poller = select.poll()
        self._datagram = False
        self._untaken = 0
        self._closed = False
        self.notices = Notices()

    def renew(self) -> None:
        """Begin a new session if the current one has ended. What the old one had open is closed."""
        if self._owner_thread == _get_ident():
            raise error_of(codes.TRY_AGAIN, "a call of this thread is still running (a signal handler?)")
        with self._lock:
            if self._session.state is SessionState.ENDED and not self._closed:
                self._session = self._session.successor(secrets.randbits(62) + 1)

    @property
    def session_id(self) -> int:
        """The session's number; 0 once closed."""
        return 0 if self._closed else self._session.session_id

    @property
    def session(self) -> Session:
        """The session, for reading its counts."""
        return self._session

    @property
    def node_id(self) -> str:
        """The node to which we are, or were last, connected; "" before the first call."""
        return self._session.node_id

    def set_pause_max(self, pause_max_ns: int) -> None:
        """Set the longest pause before a request that was answered TRY_AGAIN is repeated."""
        self._session.pause_max_ns = max(pause_max_ns, 0)

    # -- calls

    def call(self, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        """Make a request, wait, and return the answer's payload.

        Raises: SaAisError with the answer's code, or TIMEOUT, TRY_AGAIN, UNAVAILABLE when the time is over.
        """
        lock = self._lock
        if self._owner_thread and self._owner_thread == _get_ident():
            raise error_of(codes.TRY_AGAIN, "a call of this thread is still running (a signal handler?)")
        now_ns = _monotonic_ns()
        deadline_ns = now_ns + timeout_ns
        try:
            if not lock.acquire(False):
                now_ns = self._take_turn(lock, timeout_ns)
        except BaseException:
            try:  # noqa: SIM105
                lock.release()
            except RuntimeError:
                pass  # We did not have it yet.
            raise
        # A signal handler may raise after any function call. From here to the release each is inside a `try`.
        try:
            self._owner_thread = _get_ident()
            if not self._consistent:
                self._recover()
            if self._closed:
                raise error_of(codes.BAD_HANDLE, "the connection is closed")
            self._consistent = False
            session = self._session
            if session.move is not None and session.attached and timeout_ns >= _MOVE_CALL_NS:
                self._make_move(session.move, MOVE_LIMIT_NS)
                now_ns = _monotonic_ns()
            call = session.begin(kind, handle, body, now_ns, deadline_ns - now_ns)
            if session.attached and len(body) < _SIMPLE_BYTES_MAX:
                self._fast_path(session.wake_ns - now_ns, deadline_ns)
            if not call.done:
                self._run_until_done(session, call)
            if self._closed:
                self._drop_socket()
                session.end("the connection was closed")
            session.completed.clear()
            self._consistent = True
        finally:
            try:
                if not self._consistent:
                    self._recover()
            finally:
                self._owner_thread = 0
                lock.release()
        if call.code != codes.OK:
            raise error_of(call.code, call.text, call.index, call.payload)
        return call.payload

    def _take_turn(self, lock: Any, timeout_ns: int) -> int:
        """Wait for other threads' calls to end; return the time."""
        until_ns = _monotonic_ns() + timeout_ns
        if not lock.acquire(timeout=min(timeout_ns / _SECOND_NS, threading.TIMEOUT_MAX)):
            raise error_of(codes.TRY_AGAIN, "calls of other threads on this connection took all the time")
        return min(_monotonic_ns(), until_ns - 1)

    def _recover(self) -> None:
        """Recover from an interrupted call, whose caller has gone and whose frame may have been cut in two.

        Drop the link, which cannot be trusted any more. What an OPEN has opened is closed.
        """
        session, now_ns = self._session, _monotonic_ns()
        self._drop_socket()
        for call in (*session.completed, *session.calls.values()):
            if not call.orphan:
                session.abandon(call, now_ns)
        session.completed.clear()
        session.lose_link(now_ns, "a call was interrupted")
        self._consistent = True

    def _fast_path(self, wait_ns: int, deadline_ns: int) -> None:
        """Send one frame and receive one answer, as usual. Leave everything else to `_run_until_done`."""
        sock = self._socket
        assert sock is not None, "attached without a socket"
        outgoing = self._session.outgoing
        if len(outgoing) != 1:
            if self._datagram or not outgoing:
                return
            outgoing[:] = [b"".join(outgoing)]
        frames = outgoing[0]
        try:
            sent = sock.send(frames, _DONT_WAIT)
            if sent < len(frames):
                outgoing[0] = frames[sent:]
                return
            outgoing.clear()
            # The kernel could time the receive itself, but its time-out would start again after each signal.
            if self._poller.poll(min(max(wait_ns, 0), PING_AFTER_NS) // _MILLISECOND_NS + 1):
                self._on_bytes(sock.recv(_RECEIVE_BYTES, _DONT_WAIT), deadline_ns)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(*explain_failure(error))

    def _on_bytes(self, data: bytes, deadline_ns: int) -> None:
        if not data and not self._datagram:
            self._lose("the daemon closed the connection")
            return
        session = self._session
        if len(data) > HEADER_BYTES and not self._datagram:
            length = HEADER.unpack_from(data)[0]
            if (
                _RECEIVE_BYTES < length + LENGTH_BYTES <= FRAME_BYTES_MAX
                and len(data) < length + LENGTH_BYTES
                and not session.mid_frame
            ):
                self._receive_large(length + LENGTH_BYTES - HEADER_BYTES, data, deadline_ns)
                return
        session.receive(data, _monotonic_ns())

    def _receive_large(self, body_bytes: int, data: bytes, deadline_ns: int) -> None:
        """Receive a large body into a buffer of its size, since joining pieces would copy it repeatedly.

        Raises: OSError.
        """
        sock, session = self._socket, self._session
        assert sock is not None, "receiving without a socket"
        body = bytearray(body_bytes)
        have = len(data) - HEADER_BYTES
        with memoryview(body) as view:
            view[:have] = data[HEADER_BYTES:]
            while have < body_bytes:
                left_ns = deadline_ns - _monotonic_ns()
                if left_ns <= 0:
                    # The caller's time is over. The next call receives the rest.
                    session.receive(data[:HEADER_BYTES] + bytes(view[:have]), _monotonic_ns())
                    return
                try:
                    received = sock.recv_into(view[have:], 0, _DONT_WAIT)
                except BlockingIOError:
                    if not self._poll(sock, select.POLLIN, left_ns) and left_ns > PING_AFTER_NS:
                        self._lose("the node stopped in the middle of an answer")
                        return
                    continue
                if not received:
                    self._lose("the daemon closed the connection in the middle of an answer")
                    return
                have += received
        _, kind, a, b, c = HEADER.unpack_from(data)
        session.receive_frame(Frame(kind, a, b, c, body), _monotonic_ns())  # type: ignore[arg-type]

    # -- everything but the usual path

    def _run_until_done(self, session: Session, call: Call) -> None:
        """Do whatever it takes until the call is done: connect, repeat, go to another node."""
        while not call.done:
            if self._session is not session:
                raise error_of(codes.TIMEOUT, "the process was forked in the middle of the call")
            if self._closed:
                session.end("the connection was closed")
                break
            now_ns = _monotonic_ns()
            if self._untaken:
                self._look_at_untaken(session, now_ns)
            session.advance(now_ns)
            if call.done:
                break
            if session.state in (SessionState.DISCONNECTED, SessionState.ENDED):
                self._drop_socket()
                if session.connect_ns > now_ns:
                    time.sleep((min(session.connect_ns, call.deadline_ns) - now_ns) / _SECOND_NS)
                else:
                    self._connect(call.deadline_ns - now_ns)
            elif session.move is not None and session.move.call_waits:
                self._make_move(session.move, min(call.deadline_ns - now_ns, MOVE_LIMIT_NS))
            elif session.outgoing:
                self._send_pieces(call)
            else:
                self._receive(session.wake_ns - now_ns, call.deadline_ns)
        if session.state in (SessionState.DISCONNECTED, SessionState.ENDED):
            self._drop_socket()
        if session.notices:
            self.notices.tell_all(session.notices)

    def _connect(self, left_ns: int) -> None:
        session = self._session
        try:
            sock = connect_socket(session.address, min(session.connect_limit_ns, left_ns) / _SECOND_NS)
        except (OSError, ValueError) as error:
            session.lose_link(_monotonic_ns(), *explain_failure(error))
            return
        self._use_socket(sock)
        session.open_link(secrets.token_bytes(NONCE_BYTES), _monotonic_ns())

    def _use_socket(self, sock: socket.socket) -> None:
        self._drop_socket()
        self._socket = sock
        self._datagram = sock.type == socket.SOCK_DGRAM
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)

    def _make_move(self, move: PlannedMove, limit_ns: int) -> None:
        """Open the second link that the session wants, and switch to it once its node has the session."""
        until_ns = _monotonic_ns() + limit_ns
        sock = None
        try:
            sock = connect_socket(move.address, limit_ns / _SECOND_NS)
            move.open(secrets.token_bytes(NONCE_BYTES))
            while move.under_way:
                self._session.advance_move(_monotonic_ns())
                sock.sendall(b"".join(move.outgoing))
                move.outgoing.clear()
                left_ns = until_ns - _monotonic_ns()
                if left_ns <= 0:
                    move.fail("it does not accept the session within the time limit")
                elif self._poll(
                    sock,
                    select.POLLIN,
                    MOVE_QUIESCE_NS if move.stage is MoveState.CONNECTED else left_ns,
                ):
                    data = sock.recv(_RECEIVE_BYTES)
                    move.receive(data) if data else move.fail("it closed the connection")
        except (OSError, ValueError) as error:
            move.fail(explain_failure(error)[0])
        finally:
            # If the call is interrupted, the link is lost, and the move with it.
            if self._session.finish_move(move, _monotonic_ns()) and sock is not None:
                self._use_socket(sock)
            elif sock is not None:
                sock.close()

    def _send_pieces(self, call: Call) -> None:
        """Send what is due, as fast as the node takes it, within the call's time-out."""
        sock, session = self._socket, self._session
        assert sock is not None, "sending without a socket"
        frames = session.outgoing[:]
        session.outgoing.clear()
        try:
            if self._datagram:
                for frame in frames:
                    sock.send(frame)
                return
            rest = memoryview(b"".join(frames))
            large, waited = len(rest) > LARGE_BYTES, False
            while rest:
                try:
                    rest = rest[sock.send(rest, _DONT_WAIT) :]
                except BlockingIOError:
                    now_ns, waited = _monotonic_ns(), True
                    wait_ns = min(session.silent_ns, call.deadline_ns) - now_ns
                    if wait_ns <= 0:
                        self._lose("the node does not read what is sent to it")
                        return
                    self._poll(sock, select.POLLOUT, wait_ns)
                    continue
                if waited:
                    waited = False
                    session.drained(_monotonic_ns())
            self._untaken = untaken_bytes(sock) if large else 0
        except BlockingIOError:
            return  # The socket's buffer is full: the datagram is lost, as others are.
        except OSError as error:
            self._lose(*explain_failure(error))

    def _look_at_untaken(self, session: Session, now_ns: int) -> None:
        """Check the progress of a large request: it may take longer than a node may be silent."""
        before, untaken = self._untaken, untaken_bytes(self._socket) if self._socket is not None else 0
        self._untaken = untaken if untaken > LARGE_BYTES else 0
        if untaken < before:
            session.drained(now_ns)

    def _receive(self, wait_ns: int, deadline_ns: int) -> None:
        sock = self._socket
        assert sock is not None, "receiving without a socket"
        try:
            if self._poll(sock, select.POLLIN, wait_ns):
                self._on_bytes(sock.recv(_RECEIVE_BYTES, _DONT_WAIT), deadline_ns)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(*explain_failure(error))

    def _poll(self, sock: socket.socket, what: int, wait_ns: int) -> bool:
        poll = select.poll()
        poll.register(sock, what)
        # Rounded up: a poll that ended just before its time would be repeated in a busy loop.
        return bool(poll.poll(min(max(wait_ns, 0), PING_AFTER_NS) // _MILLISECOND_NS + 1))

    def _lose(self, why: str, outlook: Outlook = Outlook.OPEN) -> None:
        self._drop_socket()
        self._session.lose_link(_monotonic_ns(), why, outlook)

    def _drop_socket(self) -> None:
        sock, self._socket = self._socket, None
        self._untaken = 0
        if sock is not None:
            sock.close()

    # -- closing

    def close(self) -> None:
        """End the session: all that it opened is closed. Closing again does nothing."""
        if self._owner_thread == _get_ident():
            # A signal handler closes what its own thread is using. This ends the call that it interrupted.
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            return
        if self._closed:
            with self._lock:
                self._drop_socket()  # It is still there if a handler closed us just as a call had ended.
            return
        address = self._session.address
        try:
            if not self._session.attached:
                return
            if goodbyes.is_worth_waiting(address, _monotonic_ns()):
                self.call(Kind.DETACH, 0, EMPTY_BODY, DETACH_NS)
            else:
                self.leave()
        except SaAisError as error:
            # The end of the session's grace time closes what the service has not closed now.
            if error.code == codes.TIMEOUT:
                goodbyes.note_unanswered(address, _monotonic_ns())
        finally:
            self._closed = True  # This also ends another thread's call.
            with self._lock:
                self._drop_socket()

    def leave(self, patience_s: float = 0.0) -> None:
        """Say goodbye without waiting for an answer, for a program that ends or drops its table.

        Otherwise what it had open would stay open for the session's grace time. `patience_s` is how long to
        wait for another thread's call to end.
        """
        if self._owner_thread == _get_ident() or not self._lock.acquire(timeout=patience_s):
            return
        try:
            sock, session = self._socket, self._session
            if sock is not None and session.attached and not self._closed:
                for frame in session.goodbye():
                    sock.send(frame, _DONT_WAIT)
        except OSError:
            pass  # The link was broken: the end of the grace time closes everything.
        finally:
            self._closed = True
            self._drop_socket()
            self._lock.release()

    def __del__(self) -> None:
        # A constructor that refused its arguments leaves a connection without `_socket`.
        if getattr(self, "_socket", None) is not None:
            self.leave()

    def _after_fork(self) -> None:
        """In the child: start with a new session. The parent still uses the socket and the old session."""
        closed = self._closed
        self._drop_socket()
        self._start()
        self._closed = closed


_connections: "weakref.WeakSet[Connection]" = weakref.WeakSet()


def _start_afresh() -> None:
    for connection in list(_connections):
        connection._after_fork()


def _leave_all() -> None:
    until_s = time.monotonic() + LEAVE_S
    for connection in list(_connections):
        connection.leave(max(until_s - time.monotonic(), 0.0))


os.register_at_fork(after_in_child=_start_afresh)
atexit.register(_leave_all)
