"""Limits the answers that clients have not read yet, and cuts off clients when there are too many.

Bytes in the kernel's buffers are not counted. This module must not know what an answer means.
"""

from typing import Final, Protocol

from ckpt_protocol.limits import FRAME_BYTES_MAX

MEASURE_BYTES: Final = 16 * 1024
"""A link is measured again after this many bytes were written to it, so its figure is wrong by no more."""


class WritingLink(Protocol):
    """The part of a link's interface that this module uses."""

    @property
    def unread_bytes(self) -> int:
        """Bytes that wait to be sent on the link now."""

    def cut_off(self, limit: str, why: str) -> None:
        """End the link at once, because it uses too much of a limit that all clients share."""


class UnreadAnswers:
    """The unread bytes of each link, as last measured. A link that has read since then is not noticed here,
    so all are measured again before one is cut off for the total."""

    def __init__(self, bytes_max: int, share_of_limits: int) -> None:
        self.bytes_max = bytes_max
        self.link_bytes_max = max(bytes_max // share_of_limits, FRAME_BYTES_MAX)
        """What one link may have. One answer of the largest size always fits, whatever the total limit is."""

        self.unread_bytes = 0
        self._unread: dict[WritingLink, int] = {}

    def note(self, link: WritingLink, unread_bytes: int) -> None:
        """Note the unread bytes of a link. Cut it off if it has too many; while all links together have too
        many, cut off the one with most."""
        self._put(link, unread_bytes)
        if unread_bytes > self.link_bytes_max:
            self._put(link, 0)
            link.cut_off(
                "client_buffer_bytes_max",
                f"it has not read {unread_bytes} bytes of its answers, and one client may have "
                f"{self.link_bytes_max} bytes (client_buffer_bytes_max, share_of_limits)",
            )
        if self.unread_bytes > self.bytes_max:
            self.measure()
        while self.unread_bytes > self.bytes_max:
            worst = max(self._unread, key=lambda found: self._unread[found])
            taken = self._unread[worst]
            self._put(worst, 0)
            worst.cut_off(
                "client_buffer_bytes_max",
                f"the unread answers of all clients exceed {self.bytes_max} bytes "
                f"(client_buffer_bytes_max), and this client has the largest share: {taken} bytes",
            )

    def measure(self) -> int:
        """Measure every link again; return the total."""
        for link in tuple(self._unread):
            self._put(link, link.unread_bytes)
        return self.unread_bytes

    def _put(self, link: WritingLink, unread_bytes: int) -> None:
        self.unread_bytes += unread_bytes - self._unread.pop(link, 0)
        if unread_bytes:
            self._unread[link] = unread_bytes
