"""A session over one blocking socket: no event loop, no thread, no more system calls than a send and a
receive.

Several threads may call; they take turns, so that a single caller pays for nothing but the lock. After a fork
the child has a session and a socket of its own.
"""

import atexit
import os
import secrets
import select
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any, Final

from ckpt_client import calls
from ckpt_client.address import Address, choose_addresses, choose_key
from ckpt_client.attachment import RESEND_NS, State
from ckpt_client.call import Call
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.session import QUIET_NS, Session
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import HEADER, HEADER_BYTES, LENGTH_BYTES, Frame
from ckpt_protocol.greeting import NONCE_BYTES, Identity
from ckpt_protocol.limits import FRAME_BYTES_MAX
from ckpt_protocol.messages import Kind

CONNECT_NS: Final = QUIET_NS
"""A connection that is not made by then is tried elsewhere."""

DETACH_NS: Final = QUIET_NS
"""How long `close` waits for the service to hear of it; otherwise the session's grace time does the rest."""

_RECEIVE_BYTES: Final = 65536
"""What one receive asks for; a larger frame is received into a buffer of its size."""

_SIMPLE_BYTES_MAX: Final = 32768
"""A larger request is sent in pieces, each within the call's time-out."""

_SECOND_NS: Final = 1_000_000_000
_MILLISECOND_NS: Final = 1_000_000
_monotonic_ns = time.monotonic_ns


def connect_socket(address: Address, timeout_s: float) -> socket.socket:
    """A connected socket (for udp: one that sends there and hears nobody else). Raises: OSError."""
    if address.scheme == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(address.host)
        except BaseException:
            sock.close()
            raise
    elif address.scheme == "tcp":
        sock = socket.create_connection((address.host, address.port), timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(where[0], where[1], where[2])
        sock.connect(where[4])
    # The kernel keeps the time on the usual path; Python's own would cost a poll before each receive.
    sock.settimeout(None)
    slice_ns = RESEND_NS if address.datagram else QUIET_NS
    seconds, rest_ns = divmod(slice_ns, _SECOND_NS)
    interval = struct.pack("@ll", seconds, rest_ns // 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
    return sock


def failure_of(error: Exception) -> tuple[str, bool]:
    """(what went wrong with a connection, whether a first one would go so again).

    A ValueError says that the host's name is none.
    """
    why = getattr(error, "strerror", "") or str(error) or type(error).__name__
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return f"no daemon listens ({why})", True
    return why, isinstance(error, PermissionError | socket.gaierror | ValueError)


class Connection:
    """A session with the service, and the calls that concern no open table.

    `address`: a URL, several separated by commas, or a list; None takes `CKPTD_ADDRESS`, else the local
    daemon's socket. `cluster`: the cluster's name, "" for any. `key`: the cluster's key, None takes
    `CKPTD_KEY`. Nothing is sent before the first call.

    Raises: SaAisError INVALID_PARAM.
    """

    def __init__(
        self,
        address: str | Iterable[str] | None = None,
        cluster: str = "",
        key: str | bytes | None = None,
    ) -> None:
        self._addresses = choose_addresses(address)
        self._identity = Identity(cluster, choose_key(key))
        self._start()
        _connections.add(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._session = Session(secrets.randbits(62) + 1, self._addresses, self._identity)
        self._socket: socket.socket | None = None
        self._datagram = False
        self._simple_ns = 0
        self._closed = False

    @property
    def session_id(self) -> int:
        """The session's number; 0 once closed."""
        return 0 if self._closed else self._session.session_id

    @property
    def node_id(self) -> str:
        """The node we are, or were last, connected to; "" before the first call."""
        return self._session.node_id

    def set_pause_max(self, pause_max_ns: int) -> None:
        """The longest pause before a request that was answered TRY_AGAIN is repeated."""
        self._session.pause_max_ns = max(pause_max_ns, 0)

    # -- calls

    def describe(self, what: str, timeout: float | None = None) -> Any:
        """What the node knows: "cluster" (a dict) or "checkpoints" (a list). Raises: SaAisError."""
        return self.call(Kind.DESCRIBE, 0, pack_body([what]), self._timeout_ns(timeout))

    def unlink(self, name: calls.Key, timeout: float | None = None) -> None:
        """Free a checkpoint's name; its data goes with the last table that has it open.

        Raises: SaAisError.
        """
        self.call(Kind.UNLINK, 0, pack_body([calls.checkpoint_name(name)]), self._timeout_ns(timeout))

    def status(self, handle: int, timeout: float | None = None) -> calls.Status:
        """The state of an open checkpoint. Raises: SaAisError."""
        return calls.status_of(self.call(Kind.STATUS, handle, calls.EMPTY_BODY, self._timeout_ns(timeout)))

    def _timeout_ns(self, timeout: float | None) -> int:
        return calls.timeout_in_ns(timeout, int(calls.TIMEOUT_S * _SECOND_NS))

    def call(self, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        """Ask, wait, and return the answer's payload.

        Raises: SaAisError with the answer's code, or TIMEOUT, TRY_AGAIN, UNAVAILABLE when time is over.
        """
        lock = self._lock
        if not lock.acquire(False):
            timeout_ns = self._take_turn(lock, timeout_ns)
        try:
            if self._closed:
                raise error_of(codes.BAD_HANDLE, "the connection is closed")
            session = self._session
            call = session.begin(kind, handle, body, _monotonic_ns(), timeout_ns)
            try:
                if session.attached and timeout_ns >= self._simple_ns and len(body) < _SIMPLE_BYTES_MAX:
                    self._exchange()
                if not call.done:
                    self._drive(call)
            except BaseException as error:
                # A frame may have been cut in two: this link cannot be trusted any more.
                session.abandon(call, _monotonic_ns())
                self._drop_socket()
                session.lose_link(_monotonic_ns(), f"a call was interrupted ({type(error).__name__})")
                raise
            finally:
                session.finished.clear()
        finally:
            lock.release()
        if call.code != codes.OK:
            raise error_of(call.code, call.text, call.index)
        return call.payload

    def _take_turn(self, lock: threading.Lock, timeout_ns: int) -> int:
        """Wait for other threads' calls; return what is left of the time."""
        begun_ns = _monotonic_ns()
        if not lock.acquire(timeout=min(timeout_ns / _SECOND_NS, threading.TIMEOUT_MAX)):
            raise error_of(codes.TRY_AGAIN, "other threads' calls on this connection took all the time")
        return max(timeout_ns - (_monotonic_ns() - begun_ns), 1)

    def _exchange(self) -> None:
        """The usual path: one frame out, one answer in. What does not fit that is left to `_drive`."""
        sock = self._socket
        assert sock is not None, "attached without a socket"
        outgoing = self._session.outgoing
        try:
            sock.sendall(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))
        except OSError as error:
            # How much of it went out is not known, so that this stream is of no more use.
            full = isinstance(error, BlockingIOError)
            self._lose(*(("the node takes nothing in", False) if full else failure_of(error)))
            return
        outgoing.clear()
        try:
            data = sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(*failure_of(error))
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        if not data and not self._datagram:
            self._lose("the daemon closed the connection")
            return
        session = self._session
        if len(data) > HEADER_BYTES and not self._datagram and not session.mid_frame:
            length, kind, a, b, c = HEADER.unpack_from(data)
            if (
                _RECEIVE_BYTES < length + LENGTH_BYTES <= FRAME_BYTES_MAX
                and len(data) < length + LENGTH_BYTES
            ):
                self._take_big(kind, a, b, c, length + LENGTH_BYTES - HEADER_BYTES, data)
                return
        session.receive(data, _monotonic_ns())

    def _take_big(self, kind: int, a: int, b: int, c: int, body_bytes: int, data: bytes) -> None:
        """Receive a large body into a buffer of its size: joining pieces would copy it again and again."""
        sock, session = self._socket, self._session
        assert sock is not None, "receiving without a socket"
        body = bytearray(body_bytes)
        have = len(data) - HEADER_BYTES
        view = memoryview(body)
        view[:have] = data[HEADER_BYTES:]
        while have < body_bytes:
            try:
                received = sock.recv_into(view[have:])
            except BlockingIOError:
                self._lose("the node stopped in the middle of an answer")
                return
            except OSError as error:
                self._lose(*failure_of(error))
                return
            if not received:
                self._lose("the daemon closed the connection in the middle of an answer")
                return
            have += received
        view.release()
        session.receive_frame(Frame(kind, a, b, c, body), _monotonic_ns())  # type: ignore[arg-type]

    # -- everything that is not the usual path

    def _drive(self, call: Call) -> None:
        """Do whatever it takes (connect, repeat, go elsewhere) until the call is done."""
        session = self._session
        while not call.done:
            now_ns = _monotonic_ns()
            session.advance(now_ns)
            if call.done:
                break
            if session.state in (State.UNLINKED, State.ENDED):
                self._drop_socket()
                if session.connect_ns > now_ns:
                    time.sleep((min(session.connect_ns, call.deadline_ns) - now_ns) / _SECOND_NS)
                else:
                    self._connect(call.deadline_ns - now_ns)
            elif session.outgoing:
                self._send_pieces(call)
            else:
                self._receive(session.wake_ns - now_ns)
        if session.state in (State.UNLINKED, State.ENDED):
            self._drop_socket()

    def _connect(self, left_ns: int) -> None:
        session = self._session
        address = session.address
        try:
            self._socket = connect_socket(address, min(CONNECT_NS, left_ns) / _SECOND_NS)
        except (OSError, ValueError) as error:
            why, final = failure_of(error)
            session.lose_link(_monotonic_ns(), why, final)
            return
        self._datagram = address.datagram
        self._simple_ns = RESEND_NS if address.datagram else QUIET_NS
        session.open_link(secrets.token_bytes(NONCE_BYTES), _monotonic_ns())

    def _send_pieces(self, call: Call) -> None:
        """Send what is due, as fast as it is taken, within the call's time."""
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
            while rest:
                try:
                    rest = rest[sock.send(rest, socket.MSG_DONTWAIT) :]
                    continue
                except BlockingIOError:
                    pass
                wait_ns = min(QUIET_NS, call.deadline_ns - _monotonic_ns())
                if wait_ns <= 0 or not self._poll(sock, select.POLLOUT, wait_ns):
                    self._lose("the node takes nothing in")
                    return
            session.progressed(_monotonic_ns())
        except BlockingIOError:
            return  # A datagram that found no room is lost, as others are.
        except OSError as error:
            self._lose(*failure_of(error))

    def _receive(self, wait_ns: int) -> None:
        sock = self._socket
        assert sock is not None, "receiving without a socket"
        try:
            if self._poll(sock, select.POLLIN, wait_ns):
                self._take(sock.recv(_RECEIVE_BYTES))
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(*failure_of(error))

    def _poll(self, sock: socket.socket, what: int, wait_ns: int) -> bool:
        poll = select.poll()
        poll.register(sock, what)
        # A poll that ended before its time by rounding would be repeated in a hurry.
        return bool(poll.poll(min(max(wait_ns, 0), QUIET_NS) // _MILLISECOND_NS + 1))

    def _lose(self, why: str, final: bool = False) -> None:
        self._drop_socket()
        self._session.lose_link(_monotonic_ns(), why, final)

    def _drop_socket(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    # -- the end

    def close(self) -> None:
        """End the session: all that it opened is closed. Closing again does nothing."""
        if self._closed:
            return
        try:
            if self._session.attached:
                self.call(Kind.DETACH, 0, calls.EMPTY_BODY, DETACH_NS)
        except SaAisError:
            pass  # The session's grace time ends what the service did not hear of.
        finally:
            with self._lock:
                self._closed = True
                self._drop_socket()

    def leave(self) -> None:
        """Say goodbye without waiting for an answer, for a program that ends or forgets its table.

        Otherwise what it had open would stay open for the session's grace time.
        """
        sock = self._socket
        if sock is None or not self._lock.acquire(blocking=False):
            return
        try:
            session = self._session
            if session.attached and not self._closed:
                session.begin(Kind.DETACH, 0, calls.EMPTY_BODY, _monotonic_ns(), DETACH_NS)
                sock.send(b"".join(session.outgoing), socket.MSG_DONTWAIT)
        except OSError:
            pass  # The link was broken: the grace time does it.
        finally:
            self._closed = True
            self._drop_socket()
            self._lock.release()

    def __del__(self) -> None:
        # A constructor that refused its arguments leaves a connection without a socket.
        if getattr(self, "_socket", None) is not None:
            self.leave()

    def _after_fork(self) -> None:
        """In the child: the parent goes on with the socket and the session; they are not ours to touch."""
        closed = self._closed
        self._drop_socket()
        self._start()
        self._closed = closed


_connections: "weakref.WeakSet[Connection]" = weakref.WeakSet()


def _start_afresh() -> None:
    for connection in list(_connections):
        connection._after_fork()


def _leave_all() -> None:
    for connection in list(_connections):
        connection.leave()


os.register_at_fork(after_in_child=_start_afresh)
atexit.register(_leave_all)
