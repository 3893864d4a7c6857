"""Answers that clients have not read: how much they take together, and who is cut off where that is too much.

What the kernel holds is not counted. It must not know what an answer says.
"""

from typing import Final, Protocol

from ckpt_protocol.limits import FRAME_BYTES_MAX

MEASURE_BYTES: Final = 16 * 1024
"""After so many bytes written to a link it is measured again: the account of a link is wrong by no more."""


class Writing(Protocol):
    """A link, as far as this module knows it."""

    @property
    def unread_bytes(self) -> int:
        """What waits to be sent on it, now."""

    def cut_off(self, limit: str, why: str) -> None:
        """End the link at once: it takes more than it may of what all clients share."""


class UnreadAnswers:
    """What waits of each link that was measured; nothing tells of a link that went on reading since.

    `link_bytes_max`: what one link may have. One answer of the largest size has room, whatever the total is.
    """

    def __init__(self, bytes_max: int, share_of_limits: int) -> None:
        self.bytes_max = bytes_max
        self.link_bytes_max = max(bytes_max // share_of_limits, FRAME_BYTES_MAX)
        self.held_bytes = 0
        self._held: dict[Writing, int] = {}

    def note(self, link: Writing, unread_bytes: int) -> None:
        """A link was measured. Who has too much is cut off; where all have, the one that has most."""
        self._put(link, unread_bytes)
        if unread_bytes > self.link_bytes_max:
            self._put(link, 0)
            link.cut_off(
                "client_buffer_bytes_max",
                f"{unread_bytes} bytes of its answers are not read, and one client may have "
                f"{self.link_bytes_max} (client_buffer_bytes_max, share_of_limits)",
            )
        if self.held_bytes > self.bytes_max:
            self.measure()
        while self.held_bytes > self.bytes_max:
            worst = max(self._held, key=lambda found: self._held[found])
            taken = self._held[worst]
            self._put(worst, 0)
            worst.cut_off(
                "client_buffer_bytes_max",
                f"unread answers of all clients take more than client_buffer_bytes_max, "
                f"{self.bytes_max} bytes, and its take {taken} of them",
            )

    def measure(self) -> int:
        """Measure every link anew; return what all have."""
        for link in tuple(self._held):
            self._put(link, link.unread_bytes)
        return self.held_bytes

    def _put(self, link: Writing, unread_bytes: int) -> None:
        self.held_bytes += unread_bytes - self._held.pop(link, 0)
        if unread_bytes:
            self._held[link] = unread_bytes
