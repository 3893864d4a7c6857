"""Keep the sessions of idle tables alive: one thread for all tables of a process with `keep_alive=True`.

A blocking `Table` does nothing between its calls. If its node becomes silent during a long pause, its session
ends after the grace; if that was the last session that had the checkpoint open, the retention begins. This
thread sends each table's node a PING, and moves the session to another node if no answer comes.
"""

import os
import select
import socket
import threading
import time
import weakref
from typing import Final, Protocol

from ckpt_client.errors import SaAisError
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.requests.table_requests import EMPTY_BODY
from ckpt_client.session.attachment import SessionState
from ckpt_client.session.call import MILLISECOND_NS
from ckpt_client.session.node_silence import DEAD_AFTER_NS, KEEP_UP_NS
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind

ANSWERS_S: Final = 0.05
"""How long the thread waits for the answers of live nodes."""

LOOK_S: Final = KEEP_UP_NS / 1e9 / 2
"""How often the thread looks for idle tables."""

CALL_NS: Final = 1_500 * MILLISECOND_NS
"""The time-out for moving to another node. If that fails, the next look tries again."""

_RECEIVE_BYTES: Final = 65536


class KeptConnection(Connection):
    """A connection that another thread keeps alive between the calls."""

    def ask_for_life(self, now_ns: int) -> bool:
        """Send a PING, without waiting, if nothing came for a while. Return True if there is work to do."""
        if not self._lock.acquire(blocking=False):
            return False  # A call is in progress, and watches the link itself.
        try:
            session, sock = self._session, self._socket
            if self._closed or not session.was_attached:
                return False
            if sock is None or session.state is not SessionState.ATTACHED:
                return True
            if not session.ask_for_life(now_ns):
                return False
            frames = b"".join(session.outgoing)
            session.outgoing.clear()
            if sock.send(frames, socket.MSG_DONTWAIT) < len(frames):
                self._lose("the node does not read what is sent to it")
        except OSError as error:
            self._lose(str(error))
        finally:
            self._lock.release()
        return True

    def hear_of_life(self) -> bool:
        """Receive what has come since. Return True if the node has shown that it lives."""
        if not self._lock.acquire(blocking=False):
            return True
        try:
            session, sock = self._session, self._socket
            if sock is None:
                return False
            poller = select.poll()
            poller.register(sock, select.POLLIN)
            now_ns = time.monotonic_ns()
            if poller.poll(0):
                self._on_bytes(sock.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT), now_ns)
            session.advance(now_ns)
            for frame in session.outgoing if self._datagram else ():
                sock.send(frame, socket.MSG_DONTWAIT)  # Repeat the PING, since it may have been lost.
            session.outgoing.clear()
            return (
                self._socket is not None and session.state is SessionState.ATTACHED and not session.owed_life
            )
        except OSError as error:
            self._lose(str(error))
            return False
        finally:
            self._lock.release()

    def go_elsewhere(self) -> None:
        """Have the session attached to a live node. Raises: SaAisError."""
        # A PING with a handle waits until the session is attached.
        self.call(Kind.PING, 1, EMPTY_BODY, CALL_NS)


class Kept(Protocol):
    """A table whose session is kept alive."""

    @property
    def kept_connection(self) -> KeptConnection | None:
        """The table's connection; None once the table is closed."""

    def come_back(self, timeout_ns: int) -> None:
        """Open the checkpoint again, in a new session. If it is gone, keep the error for the next call."""


class Keeper:
    """The tables whose sessions are kept alive, and their thread, which ends with the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: weakref.WeakSet[Kept] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()

    def keep(self, table: Kept) -> None:
        """Keep a table's session alive from now on, as long as the table is open."""
        with self._lock:
            self._tables.add(table)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ckpt_client keeps up", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_S)
            with self._lock:
                open_tables = [table for table in self._tables if table.kept_connection is not None]
                if not open_tables:
                    self._thread = None
                    return
            keep_up(open_tables)
            del open_tables


def keep_up(tables: list[Kept]) -> None:
    """Check these tables once.

    All nodes are asked before any answer is awaited, so that a silent node costs its time once, and not once
    for each table.
    """
    now_ns = time.monotonic_ns()
    asked = [
        (table, connection)
        for table in tables
        if (connection := table.kept_connection) is not None and connection.ask_for_life(now_ns)
    ]
    if not asked:
        return
    time.sleep(ANSWERS_S)
    silent = [pair for pair in asked if not pair[1].hear_of_life()]
    if not silent:
        return
    time.sleep(max(now_ns + DEAD_AFTER_NS - time.monotonic_ns(), 0) / 1e9)
    for table, connection in silent:
        if connection.hear_of_life():
            continue
        try:
            connection.go_elsewhere()
        except SaAisError as error:
            if error.code == codes.BAD_HANDLE:
                table.come_back(CALL_NS)


keeper = Keeper()


def _forget() -> None:
    """In a forked child: start without tables, since the thread is the parent's.

    A table is kept alive again once it is opened again.
    """
    global keeper
    keeper = Keeper()


os.register_at_fork(after_in_child=_forget)
