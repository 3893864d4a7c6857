"""The leadership of one table, as its program knows it: the token, how long it is valid, and why it ended.

Pure, except for its clock. Every write of a table that leads carries the token, so the service refuses a late
one whatever any clock says. The time decides only how long the program may act outside the service: until the
ttl is over since it *sent* the last request that was answered. The service counts from when that arrived, and
waits a little longer, so the program stops first.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, NamedTuple

from ckpt_client.errors import LeadershipEnded, SaAisError, error_of
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.bounds_check import array_header_bytes, array_length
from ckpt_protocol.limits import OPS_PER_UPDATE_MAX, UPDATE_BODY_BYTES_MAX
from ckpt_protocol.messages import Op

RENEWALS_PER_TTL: Final = 5
"""How often a leadership is renewed in its ttl."""

SECOND_NS: Final = 1_000_000_000

_SEQ_BITS: Final = 40
_EPOCH_BITS: Final = 64
_TEXT_DIGITS: Final = 42

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime_ns() -> int:
    """Return the time since the machine was started, including the time in which it was suspended."""
    return time.clock_gettime_ns(_CLOCK)


class Token(NamedTuple):
    """A fencing token: that of a later leadership of the same name is greater."""

    creation_id: int
    epoch: int
    seq: int

    @property
    def number(self) -> int:
        """The token as one number, of 168 bits at most."""
        return self.creation_id << _EPOCH_BITS + _SEQ_BITS | self.position

    @property
    def position(self) -> int:
        """The position of the grant in the checkpoint's sequence of updates, as TRACK counts it."""
        return self.epoch << _SEQ_BITS | self.seq

    @property
    def text(self) -> str:
        """The token as text of a fixed width, which compares like the number."""
        return f"{self.number:0{_TEXT_DIGITS}x}"


class LeadershipState:
    """One leadership from its grant to its end. Any thread may call any method."""

    def __init__(
        self, secret: int, ttl_ns: int, watchdog_ns: int | None, clock: Callable[[], int] = boottime_ns
    ) -> None:
        self.secret = secret
        """What proves to the service that an update is this leader's."""

        self.ttl_ns = ttl_ns
        self.token = Token(0, 0, 0)
        self.lineage = 0
        self._signature = b""
        self.data_may_be_lost = False
        self.valid_until_ns = 0
        """When the leadership is over unless it is renewed, by our clock."""

        self.ended = ""
        """Why the leadership has ended; "" while it lasts."""

        self.leaving = False
        """True once the program leaves the leadership itself, so that it is not lost."""

        self.lost = False
        """True if the leadership has ended before the program left it."""

        self.on_end: Callable[[bool], object] | None = None
        """Called once when the leadership has ended, with True if it was lost and False if it was left."""

        self.wake: Callable[[], object] | None = None
        """Called when the program is alive again after the watchdog's time was over."""

        self.clock = clock
        self._watchdog_ns = watchdog_ns
        self._active_ns = 0
        self._dozing = False
        self._ending = threading.Lock()
        _states.add(self)

    def grant(self, token: Token, sent_ns: int, lineage: int, data_may_be_lost: bool) -> None:
        """Begin to lead. `sent_ns`: when the request was sent whose answer says so."""
        self.token, self.data_may_be_lost = token, data_may_be_lost
        self._set_lineage(lineage)
        self.valid_until_ns = sent_ns + self.ttl_ns
        self._active_ns = self.clock()

    # -- time

    def renew(self, sent_ns: int) -> None:
        """Take the answer to a request with the token that was sent at this time."""
        until_ns = sent_ns + self.ttl_ns
        if until_ns > self.valid_until_ns:
            self.valid_until_ns = until_ns

    @property
    def renew_at_ns(self) -> int:
        """When the next renewal is due."""
        return self.valid_until_ns - self.ttl_ns + self.ttl_ns // RENEWALS_PER_TTL

    @property
    def is_over(self) -> bool:
        """True if the leadership has ended. It has if its time is over."""
        if not self.ended and self.clock() >= self.valid_until_ns:
            why = f"it was not renewed for its ttl of {self.ttl_ns / SECOND_NS:g} s"
            if self._dozing:
                why += ", since the program has neither written nor checked for its watchdog's time"
            self.end(why)
        return bool(self.ended)

    @property
    def valid_for_ns(self) -> int:
        """How long the leadership lasts at least, unless it is renewed or ended by others."""
        return 0 if self.is_over else max(self.valid_until_ns - self.clock(), 0)

    def is_silent(self) -> bool:
        """Return True if the program has neither written nor checked for the watchdog's time.

        After that, the next sign of life calls `wake`.
        """
        if self._watchdog_ns is None:
            return False
        self._dozing = True
        if self.clock() - self._active_ns >= self._watchdog_ns:
            return True
        self._dozing = False
        return False

    def check(self) -> int:
        """Note that the program is alive; return the time. Raises: LeadershipEnded."""
        now_ns = self.clock()
        if (self.ended or now_ns >= self.valid_until_ns) and self.is_over:
            raise self.lost_error()
        self._active_ns = now_ns
        if self._dozing and self.wake is not None:
            self._dozing = False
            self.wake()
        return now_ns

    # -- the end

    def end(self, why: str) -> None:
        """End the leadership, once; later calls do nothing."""
        with self._ending:
            if self.ended:
                return
            self.ended = why
            self.lost = not self.leaving
        if self.on_end is not None:
            self.on_end(self.lost)

    def stay(self) -> None:
        """The program does not leave after all. Raises: LeadershipEnded if the leadership ended meanwhile."""
        with self._ending:
            self.leaving = False
            if not self.ended:
                return
            unreported, self.lost = not self.lost, True
        if unreported and self.on_end is not None:
            self.on_end(True)
        raise self.lost_error()

    def lost_error(self) -> LeadershipEnded:
        """Return the error of a program that leads no more."""
        return LeadershipEnded(codes.ACCESS, f"this program leads no more: {self.ended}")

    # -- updates

    def sign(self, body: bytes) -> bytes:
        """Return an UPDATE with the token as its last operation. Raises: SaAisError NO_RESOURCES."""
        if body[0] in _SHORT:
            signed = _SHORT[body[0]] + body[1:] + self._signature
        else:
            count = array_length(body) + 1
            if count > OPS_PER_UPDATE_MAX:
                text = f"an update of a leader may have at most {OPS_PER_UPDATE_MAX - 1} operations"
                raise error_of(codes.NO_RESOURCES, text)
            signed = array_header(count) + body[array_header_bytes(body) :] + self._signature
        if len(signed) > UPDATE_BODY_BYTES_MAX:
            text = f"an update of {len(signed)} bytes exceeds {UPDATE_BODY_BYTES_MAX} bytes"
            raise error_of(codes.NO_RESOURCES, text)
        return signed

    def take_refusal(self, error: SaAisError) -> None:
        """Take the refusal of an update; return if it may be sent again, with the new lineage.

        Raises: LeadershipEnded if it was refused since another leadership holds; else the error.
        """
        if error.code != codes.ACCESS:
            raise error
        if type(error.detail) is int:
            self.note_lineage(error.detail)
            return
        self.end(error.text)
        raise self.lost_error() from None

    def note_lineage(self, lineage: int) -> None:
        """Take the active replica's lineage. If it is another one, the newest updates may be lost."""
        if lineage != self.lineage:
            self.data_may_be_lost = True
            self._set_lineage(lineage)

    def _set_lineage(self, lineage: int) -> None:
        self.lineage = lineage
        _, epoch, seq = self.token
        self._signature = pack_body([Op.TOKEN, epoch, seq, self.secret, lineage])

    # -- fork

    def _after_fork(self) -> None:
        """In the child: the leadership is the parent's. (The lock may have its owner there, too.)"""
        self._ending = threading.Lock()
        self.on_end = self.wake = None
        self.ended = self.ended or "its process has forked, and the parent leads"


def array_header(count: int) -> bytes:
    """Return the msgpack header of an array."""
    if count < 1 << 4:
        return bytes((0x90 | count,))
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


_SHORT: Final = {0x90 | count: array_header(count + 1) for count in range(15)}
"""The header of an array with one element more, by the header of a short one."""

_states: "weakref.WeakSet[LeadershipState]" = weakref.WeakSet()


def _forget_leaderships() -> None:
    for state in list(_states):
        state._after_fork()


os.register_at_fork(after_in_child=_forget_leaderships)
