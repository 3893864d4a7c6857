"""One request of a session, from the asking to its answer. Pure: `session` moves it along."""

from typing import Any, Final

from ckpt_protocol.messages import Kind

MILLISECOND_NS: Final = 1_000_000
NEVER_NS: Final = 2**63
"""A time that does not come."""

TRY_AGAIN_MIN_NS: Final = 2 * MILLISECOND_NS
TRY_AGAIN_MAX_NS: Final = 250 * MILLISECOND_NS
"""The pause before a request that nothing was done for is repeated doubles from the one to the other."""


WITHDRAW_NS: Final = 100 * MILLISECOND_NS
"""How long before the end of its time a call is withdrawn: time enough for a word to its node and back.

At most a quarter of the call's time. What only waits there will not be done then, and is TRY_AGAIN with the
node's reason instead of TIMEOUT.
"""


def pause_after(pause_ns: int, pause_max_ns: int) -> int:
    """The pause that follows one of `pause_ns` (0: the first)."""
    return min(2 * pause_ns or TRY_AGAIN_MIN_NS, pause_max_ns)


class Call:
    """One request until it is answered or given up. When `done`: `code` OK and `payload`, or why it failed.

    `in_flight`: sent on this link and not answered. `maybe_done`: sent on an earlier link, or more than once,
    so that a later TRY_AGAIN does not prove that nothing was done. `sends`: how often it went out. `orphan`:
    its caller gave up, the session itself waits for the answer. `awaits_stream`: it, or its answer, does not
    fit a datagram. `doubted`: it was answered BAD_HANDLE once, and is asked again.
    `withdraw_ns`: when the node is asked to give it up; `withdrawn`: it was.
    """

    __slots__ = (
        "awaits_stream",
        "body",
        "code",
        "deadline_ns",
        "done",
        "doubted",
        "handle",
        "in_flight",
        "index",
        "kind",
        "maybe_done",
        "number",
        "orphan",
        "pause_ns",
        "payload",
        "resend_ns",
        "retry_ns",
        "sends",
        "text",
        "withdraw_ns",
        "withdrawn",
    )

    def __init__(self, number: int, kind: int, handle: int, body: bytes, deadline_ns: int) -> None:
        self.number = number
        self.kind = kind
        self.handle = handle
        self.body = body
        self.deadline_ns = deadline_ns
        self.retry_ns = self.withdraw_ns = NEVER_NS
        self.withdrawn = False
        self.pause_ns = 0
        self.resend_ns = 0
        self.in_flight = False
        self.maybe_done = False
        self.sends = 0
        self.orphan = False
        self.awaits_stream = False
        self.done = False
        self.doubted = False
        self.code = 0
        self.payload: Any = None
        self.index = -1
        self.text = ""

    @property
    def needs_no_session(self) -> bool:
        """Whether a node answers it to whoever greeted it, also when it cannot serve and ATTACH would wait.

        A PING with a handle waits for the session.
        """
        return self.kind == Kind.DESCRIBE or (self.kind == Kind.PING and not self.handle)

    @property
    def maybe_applied(self) -> bool:
        """Whether the service may have it, or may get it yet."""
        return self.in_flight or self.maybe_done

    def lose_link(self) -> None:
        """The link is gone: what was in flight may have come through."""
        self.maybe_done = self.maybe_done or self.in_flight
        self.in_flight = self.awaits_stream = False
        self.retry_ns = NEVER_NS
        self.pause_ns = self.resend_ns = 0

    def orphaned(self, deadline_ns: int) -> "Call":
        """The same request, waited for by nobody but the session."""
        orphan = Call(self.number, self.kind, self.handle, self.body, deadline_ns)
        orphan.orphan = True
        orphan.in_flight, orphan.maybe_done, orphan.sends = self.in_flight, self.maybe_done, self.sends
        orphan.retry_ns, orphan.pause_ns, orphan.resend_ns = self.retry_ns, self.pause_ns, self.resend_ns
        return orphan
