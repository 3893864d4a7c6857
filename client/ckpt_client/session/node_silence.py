"""How long the node at the other end of a link has been silent, and what follows from that.

Pure. Only what comes from the node is a sign of life. What is sent to it is none: the kernel takes bytes for
a node that is frozen, and for one that was cut off.
"""

from typing import Final

from ckpt_client.session.call import MILLISECOND_NS, NEVER_NS

QUIET_NS: Final = 200 * MILLISECOND_NS
"""A node that owes an answer and is silent for this long is sent a PING."""

SILENT_NS: Final = 1_000 * MILLISECOND_NS
"""A node that owes an answer and is silent for this long is left, whether it was sent a PING or not.

The others go on without a silent node after 0.9 s (failures.md): earlier there is nowhere to go.
"""

HASTE_NS: Final = 300 * MILLISECOND_NS
"""How long one address may take to connect and greet while others have not been tried.

Two nodes of five may fall silent together. A client that gave the second one SILENT_NS too needed more than
two seconds to reach the third. In the second round over the addresses each gets SILENT_NS.
"""

STALE_NS: Final = 3_000 * MILLISECOND_NS
"""A link on which nothing came for this long gets a PING before the next request.

A request that is sent to a node that has gone in the meantime may have been done, as far as anybody knows.
One that still waits here is certain not to be: it can go to another node, or into another session.
"""


KEEP_UP_NS: Final = 2_500 * MILLISECOND_NS
"""A quiet session that is kept up has its node answer a PING this often.

A session without a node ends after 10 s (`session_grace_ms`), counted from the view without its node. That
leaves time to notice the silence, and for some tries.
"""


class Silence:
    """The silence on one link.

    `unanswered`: a caller gave up while the node owed it an answer, and nothing has come since.
    `excused`: the node has had its second chance after that.
    """

    __slots__ = ("_again_ns", "_pinged", "_since_ns", "excused", "unanswered")

    def __init__(self) -> None:
        self._since_ns = 0
        self._pinged = False
        self._again_ns = NEVER_NS
        self.unanswered = False
        self.excused = False

    @property
    def since_ns(self) -> int:
        """When the node last gave a sign of life, or first owed us one."""
        return self._since_ns

    @property
    def next_ping_ns(self) -> int:
        """When a node that owes an answer is to be sent a PING."""
        return self._again_ns if self._pinged else self._since_ns + QUIET_NS

    def heard(self, now_ns: int) -> None:
        """Bytes came from the node."""
        self._since_ns = now_ns
        self._pinged = self.unanswered = self.excused = False

    def drained(self, now_ns: int) -> None:
        """The node's side took in a part of a large request."""
        self._since_ns = now_ns
        self._pinged = False

    def begin(self, now_ns: int) -> bool:
        """The first request after a pause is due. Return True if the node should show first that it lives."""
        stale = now_ns - self._since_ns >= STALE_NS
        self._since_ns = now_ns
        return stale

    def excuse(self, now_ns: int) -> None:
        """The first request is due after one that was never answered: the silence goes on.

        Where that is long ago, nobody has listened since: once, the node gets QUIET_NS to answer.
        """
        if now_ns - self._since_ns >= SILENT_NS and not self.excused:
            self.excused = True
            self._since_ns = now_ns - SILENT_NS + QUIET_NS
            self._pinged = False

    def pinged(self, now_ns: int, repeat: bool) -> None:
        """A PING goes out; `repeat`: it may be lost on the way."""
        self._pinged = True
        self._again_ns = now_ns + QUIET_NS if repeat else NEVER_NS

    def kept(self) -> tuple[int, bool, bool, bool]:
        """What `restore` takes."""
        return self._since_ns, self._pinged, self.unanswered, self.excused

    def restore(self, kept: tuple[int, bool, bool, bool]) -> None:
        """What came was garbage."""
        self._since_ns, self._pinged, self.unanswered, self.excused = kept
