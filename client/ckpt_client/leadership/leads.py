"""The leadership of one open checkpoint, for programs that block: one, however often they ask to lead.

This imports no asyncio: every `Table` has it, and few lead.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ckpt_client.checkpoint.leadership_state import SECOND_NS, LeadershipState
from ckpt_client.errors import error_of
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.lead_arguments import LeadArguments
from ckpt_protocol import codes

if TYPE_CHECKING:
    from ckpt_client.leadership.leadership import Leadership


class Opened(Protocol):
    """An open checkpoint, whose updates carry the token of its leadership."""

    leadership: LeadershipState | None

    @property
    def closed(self) -> object: ...


def closed_error() -> Exception:
    """Return the error of a program that waited to lead while another thread or task closed its table."""
    return error_of(codes.BAD_HANDLE, "it was closed while the program waited to lead")


class Leads:
    """The leadership of one open checkpoint. Threads take turns in asking for it."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._led: Leadership | None = None
        self._waiting: Leadership | None = None
        self._turn = threading.Lock()
        self._changing = threading.Lock()

    def lead(
        self,
        arguments: LeadArguments,
        limit: TimeLimit,
        begin: "Callable[[LeadArguments, Callable[[], None]], Leadership]",
    ) -> "Leadership":
        """Lead, or return the present leadership.

        `begin` makes a leadership; its second argument is what it calls when it was left. Raises: SaAisError.
        """
        left_s = limit.left_ns() / SECOND_NS
        if not self._turn.acquire(timeout=min(left_s, threading.TIMEOUT_MAX)):
            raise error_of(codes.TIMEOUT, "another thread is waiting to lead with this table")
        try:
            led = self._led
            if led is not None and led.enter_again(arguments):
                return led

            def left() -> None:
                self._left(leadership)

            leadership = self._waiting = begin(arguments, left)
            try:
                if self._opened.closed:
                    raise closed_error()
                state = leadership.win(limit)
            finally:
                self._waiting = None
            with self._changing:
                if not self._opened.closed:
                    self._led, self._opened.leadership = leadership, state
                    return leadership
            leadership.close()
            raise closed_error()
        finally:
            self._turn.release()

    def _left(self, leadership: "Leadership") -> None:
        """The program has left a leadership. (It may lead with the next one already.)"""
        with self._changing:
            if self._led is leadership:
                self._led = self._opened.leadership = None

    def close(self) -> None:
        """Leave the leadership, or the queue; 1 s at most. What was opened is marked as closed before."""
        with self._changing:
            present = self._waiting, self._led
        for leadership in present:
            if leadership is not None:
                leadership.close()

    def after_fork(self) -> None:
        """In the child: forget the parent's threads."""
        self._turn, self._changing = threading.Lock(), threading.Lock()
        self._waiting = None
