"""Limits the memory for incomplete frames of clients, and cuts off clients that send a frame too slowly.

A frame counts with the bytes received so far, whatever length its header announces. This module must not know
what a frame means.
"""

from dataclasses import dataclass
from typing import Final, Protocol

PROGRESS_BYTES_MIN: Final = 256 * 1024
"""An incomplete frame has to grow by at least this much in every `frame_timeout_ms`.

With the default of 10 s that is 26 KB/s. A slower sender is dead, or wants to occupy memory."""


NEW_NS: Final = 1_000_000_000
"""Among frames younger than this, the largest counts as the worst; for older ones the age counts as well."""


class ReadingLink(Protocol):
    """The part of a link's interface that this module uses."""

    @property
    def is_reading(self) -> bool:
        """True if the node reads from the link. If it does not, the sender has to wait."""

    def cut_off(self, limit: str, why: str) -> None:
        """End the link at once, because it uses too much of a limit that all clients share."""


@dataclass(slots=True)
class _Unfinished:
    """One incomplete frame. Only time in which the node reads from the link counts."""

    buffered_bytes: int
    age_ns: int = 0
    waited_ns: int = 0
    """Time since `mark_bytes` of the frame had been received."""

    mark_bytes: int = 0


class UnfinishedFrames:
    """The incomplete frames of all links, at most one for each; together they take `buffered_bytes`."""

    def __init__(self, bytes_max: int, timeout_ns: int) -> None:
        self.bytes_max = bytes_max
        self.buffered_bytes = 0
        self._timeout_ns = timeout_ns
        self._frames: dict[ReadingLink, _Unfinished] = {}

    def note(self, link: ReadingLink, buffered_bytes: int, begins: bool = False) -> None:
        """Note how many bytes of an incomplete frame were received; 0 if the link has none. `begins`: it is a
        new frame, because the previous one is complete.

        While all frames together take too much, cut off the worst link: the one that has held most for
        longest. By size alone, that would be an honest one whose frame has almost arrived, next to many that
        hold a little less.
        """
        frame = self._frames.get(link)
        self.buffered_bytes += buffered_bytes - (frame.buffered_bytes if frame is not None else 0)
        if not buffered_bytes:
            self._frames.pop(link, None)
            return
        if frame is None or begins:
            self._frames[link] = _Unfinished(buffered_bytes)
        else:
            frame.buffered_bytes = buffered_bytes
        while self.buffered_bytes > self.bytes_max:
            worst = max(self._frames, key=self._burden)
            taken = self._frames.pop(worst).buffered_bytes
            self.buffered_bytes -= taken
            worst.cut_off(
                "client_frames_bytes_max",
                f"the unfinished frames of all clients exceed {self.bytes_max} bytes "
                "(client_frames_bytes_max), and this client has had the most for the longest time: "
                f"{taken} bytes",
            )

    def _burden(self, link: ReadingLink) -> int:
        frame = self._frames[link]
        return frame.buffered_bytes * (frame.age_ns + NEW_NS)

    def pass_time(self, passed_ns: int) -> None:
        """Cut off links that send a frame too slowly. Call it at a regular interval: that is `passed_ns`.

        Do not pass more after a pause of this process: bytes may have arrived that it has not read yet, and
        the clients are not to blame for the pause.
        """
        overdue: list[ReadingLink] = []
        for link, frame in self._frames.items():
            if not link.is_reading:
                frame.waited_ns, frame.mark_bytes = 0, frame.buffered_bytes
                continue
            frame.age_ns += passed_ns
            frame.waited_ns += passed_ns
            if frame.waited_ns < self._timeout_ns:
                continue
            if frame.buffered_bytes - frame.mark_bytes < PROGRESS_BYTES_MIN:
                overdue.append(link)
            frame.waited_ns, frame.mark_bytes = 0, frame.buffered_bytes
        for link in overdue:
            buffered_bytes = self._frames[link].buffered_bytes
            self.note(link, 0)
            link.cut_off(
                "frame_timeout_ms",
                f"it did not finish a frame within {self._timeout_ns // 1_000_000} ms (frame_timeout_ms), "
                f"nor send {PROGRESS_BYTES_MIN} more bytes of it: {buffered_bytes} bytes have arrived",
            )
