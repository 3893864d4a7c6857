"""One request of a session, from the call to its answer. Pure: `session_calls` changes its state."""

from typing import Any, Final

from ckpt_protocol.messages import Kind

MILLISECOND_NS: Final = 1_000_000
NEVER_NS: Final = 2**63
"""A time that never comes."""

TRY_AGAIN_MIN_NS: Final = 2 * MILLISECOND_NS
TRY_AGAIN_MAX_NS: Final = 250 * MILLISECOND_NS
"""The longest pause before a request that was answered TRY_AGAIN is repeated. The pause doubles each time."""


WITHDRAW_NS: Final = 100 * MILLISECOND_NS
"""How long before its deadline a call is withdrawn: long enough for a message to its node and the answer.

It is at most a quarter of the call's time-out. A request that is only waiting at the node is then not done,
and fails with TRY_AGAIN and the node's reason instead of TIMEOUT.
"""


def pause_after(pause_ns: int, pause_max_ns: int) -> int:
    """Return the pause that follows one of `pause_ns` (0: the first pause)."""
    return min(2 * pause_ns or TRY_AGAIN_MIN_NS, pause_max_ns)


class Call:
    """One request, until it is answered or cancelled."""

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
        """When it is sent again; when the node is asked to withdraw it."""

        self.withdrawn = False
        """The time to withdraw it has come. If it was in flight, the node was asked to withdraw it."""

        self.pause_ns = 0
        """The latest pause after TRY_AGAIN."""

        self.resend_ns = 0
        """The latest pause without an answer after which it is sent again."""

        self.in_flight = False
        """It was sent on this link and is not answered."""

        self.maybe_done = False
        """It was sent on an earlier link, or more than once: TRY_AGAIN is no proof that it was not done."""

        self.sends = 0
        """How often it was sent."""

        self.orphan = False
        """Its caller has cancelled it; only the session waits for the answer."""

        self.awaits_stream = False
        """The request or its answer does not fit into a datagram."""

        self.done = False
        """It has ended: `code` is OK and `payload` is set, or `code`, `index` and `text` say why not."""

        self.doubted = False
        """It was answered BAD_HANDLE once, and is sent again."""

        self.code = 0
        self.payload: Any = None
        self.index = -1
        self.text = ""

    @property
    def needs_no_session(self) -> bool:
        """True if a node answers it right after the handshake, even if it cannot serve and ATTACH would wait.

        A PING with a handle waits for the session.
        """
        return self.kind == Kind.DESCRIBE or (self.kind == Kind.PING and not self.handle)

    @property
    def maybe_applied(self) -> bool:
        """True if the service may have received it, or may still receive it."""
        return self.in_flight or self.maybe_done

    def lose_link(self) -> None:
        """Note that the link is gone. If the request was in flight, the node may have received it."""
        self.maybe_done = self.maybe_done or self.in_flight
        self.in_flight = self.awaits_stream = False
        self.retry_ns = NEVER_NS
        self.pause_ns = self.resend_ns = 0

    def orphaned(self, deadline_ns: int) -> "Call":
        """Return the same request, for whose answer only the session waits."""
        orphan = Call(self.number, self.kind, self.handle, self.body, deadline_ns)
        orphan.orphan = True
        orphan.in_flight, orphan.maybe_done, orphan.sends = self.in_flight, self.maybe_done, self.sends
        orphan.retry_ns, orphan.pause_ns, orphan.resend_ns = self.retry_ns, self.pause_ns, self.resend_ns
        return orphan
