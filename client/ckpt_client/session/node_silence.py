"""How long the node at the other end of a link has been silent, and what follows from that.

Pure. Only what comes from the node is a sign of life. That we can send to it is none: the kernel also takes
bytes for a node that is frozen or cut off.
"""

from typing import Final

from ckpt_client.session.call import MILLISECOND_NS, NEVER_NS

PING_AFTER_NS: Final = 200 * MILLISECOND_NS
"""A node that owes an answer and is silent for this long is sent a PING."""

DEAD_AFTER_NS: Final = 1_000 * MILLISECOND_NS
"""A node that owes an answer and is silent for this long is left, whether it was sent a PING or not.

The other nodes continue without a silent node after 0.9 s (failures.md): earlier there is nowhere to go.
"""

HASTE_NS: Final = 300 * MILLISECOND_NS
"""How long connection and handshake may take at one address while others have not been tried.

Two nodes of five may become silent at the same time. A client that gave the second one DEAD_AFTER_NS too
needed more than 2 s to reach the third. In the second round over the addresses each gets DEAD_AFTER_NS.
"""

STALE_NS: Final = 3_000 * MILLISECOND_NS
"""A link on which nothing has come for this long gets a PING before the next request.

If we send a request to a node that has gone in the meantime, we cannot know whether it was done. A request
that still waits here was certainly not done: it can go to another node, or into another session.
"""


KEEP_UP_NS: Final = 2_500 * MILLISECOND_NS
"""How often the node of an idle session that is kept alive has to answer a PING.

A session without a node ends after 10 s (`session_grace_ms`), counted from the view without its node. That is
enough time to notice the silence and to try some other nodes.
"""


class Silence:
    """The silence on one link."""

    __slots__ = ("_again_ns", "_pinged", "_since_ns", "excused", "unanswered")

    def __init__(self) -> None:
        self._since_ns = 0
        self._pinged = False
        self._again_ns = NEVER_NS
        self.unanswered = False
        """A caller gave up while the node owed it an answer, and nothing has come since."""

        self.excused = False
        """After that, the node has already had its second chance."""

    @property
    def since_ns(self) -> int:
        """When the node last gave a sign of life, or first owed us one."""
        return self._since_ns

    @property
    def next_ping_ns(self) -> int:
        """When the next PING is due, if the node owes an answer."""
        return self._again_ns if self._pinged else self._since_ns + PING_AFTER_NS

    def heard(self, now_ns: int) -> None:
        """Note that bytes came from the node."""
        self._since_ns = now_ns
        self._pinged = self.unanswered = self.excused = False

    def drained(self, now_ns: int) -> None:
        """Note that the node has read a part of a large request."""
        self._since_ns = now_ns
        self._pinged = False

    def begin(self, now_ns: int) -> bool:
        """Begin the first request after a pause. Return True if the node should first show that it lives."""
        stale = now_ns - self._since_ns >= STALE_NS
        self._since_ns = now_ns
        return stale

    def excuse(self, now_ns: int) -> None:
        """Begin the first request after one that was never answered: the silence continues.

        If that was long ago, we have not listened since. In that case the node gets PING_AFTER_NS to answer,
        once.
        """
        if now_ns - self._since_ns >= DEAD_AFTER_NS and not self.excused:
            self.excused = True
            self._since_ns = now_ns - DEAD_AFTER_NS + PING_AFTER_NS
            self._pinged = False

    def pinged(self, now_ns: int, repeat: bool) -> None:
        """Note that a PING is sent. `repeat` is True if it may be lost on the way."""
        self._pinged = True
        self._again_ns = now_ns + PING_AFTER_NS if repeat else NEVER_NS

    def kept(self) -> tuple[int, bool, bool, bool]:
        """Return the state, for `restore`."""
        return self._since_ns, self._pinged, self.unanswered, self.excused

    def restore(self, kept: tuple[int, bool, bool, bool]) -> None:
        """Go back to an earlier state, because what came was garbage."""
        self._since_ns, self._pinged, self.unanswered, self.excused = kept
