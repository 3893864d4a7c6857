"""Frames of clients that have begun and are not whole: how much they take together, and which stand still.

A frame counts with the bytes of it that are here, whatever its header announces. It must not know what a
frame says.
"""

from dataclasses import dataclass
from typing import Final, Protocol

PROGRESS_BYTES_MIN: Final = 256 * 1024
"""A frame that is not whole after `frame_timeout_ms` has grown by so much meanwhile, and so on.

26 KB/s with the default of 10 s. Less than that is a sender that wants to hold memory, or a dead one."""


NEW_NS: Final = 1_000_000_000
"""Of frames younger than this the largest counts as the worst; of older ones the age counts, too."""


class Reading(Protocol):
    """A link, as far as this module knows it."""

    @property
    def is_reading(self) -> bool:
        """Whether the node takes what comes on the link: where it does not, the sender has to wait."""

    def cut_off(self, limit: str, why: str) -> None:
        """End the link at once: it takes more than it may of what all clients share."""


@dataclass(slots=True)
class _Unfinished:
    """Times are of reading: while the node itself does not read, none passes."""

    held_bytes: int
    age_ns: int = 0
    waited_ns: int = 0
    """Since `mark_bytes` were here."""

    mark_bytes: int = 0


class UnfinishedFrames:
    """At most one of each link. `held_bytes`: what all of them take."""

    def __init__(self, bytes_max: int, timeout_ns: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes = 0
        self._timeout_ns = timeout_ns
        self._frames: dict[Reading, _Unfinished] = {}

    def note(self, link: Reading, held_bytes: int, begins: bool = False) -> None:
        """So much of a frame is here; 0: it is whole. `begins`: the one before it is whole.

        Where all take more than they may, the worst is cut off: the one that has held most for longest. By
        size alone it would be an honest one that has almost arrived, beside many that hold a little less.
        """
        frame = self._frames.get(link)
        self.held_bytes += held_bytes - (frame.held_bytes if frame is not None else 0)
        if not held_bytes:
            self._frames.pop(link, None)
            return
        if frame is None or begins:
            self._frames[link] = _Unfinished(held_bytes)
        else:
            frame.held_bytes = held_bytes
        while self.held_bytes > self.bytes_max:
            worst = max(self._frames, key=self._burden)
            taken = self._frames.pop(worst).held_bytes
            self.held_bytes -= taken
            worst.cut_off(
                "client_frames_bytes_max",
                f"unfinished frames of all clients take more than client_frames_bytes_max, "
                f"{self.bytes_max} bytes, and its takes {taken} of them",
            )

    def _burden(self, link: Reading) -> int:
        frame = self._frames[link]
        return frame.held_bytes * (frame.age_ns + NEW_NS)

    def pass_time(self, passed_ns: int) -> None:
        """Cut off who sends a frame too slowly. Called once in a while; `passed_ns`: no more than that while.

        After a pause of this process bytes may have come that it has not read: the pause is not the clients'.
        """
        overdue: list[Reading] = []
        for link, frame in self._frames.items():
            if not link.is_reading:
                frame.waited_ns, frame.mark_bytes = 0, frame.held_bytes
                continue
            frame.age_ns += passed_ns
            frame.waited_ns += passed_ns
            if frame.waited_ns < self._timeout_ns:
                continue
            if frame.held_bytes - frame.mark_bytes < PROGRESS_BYTES_MIN:
                overdue.append(link)
            frame.waited_ns, frame.mark_bytes = 0, frame.held_bytes
        for link in overdue:
            held_bytes = self._frames[link].held_bytes
            self.note(link, 0)
            link.cut_off(
                "frame_timeout_ms",
                f"a frame of which {held_bytes} bytes are here was not finished within frame_timeout_ms, "
                f"{self._timeout_ns // 1_000_000}, nor did {PROGRESS_BYTES_MIN} bytes more of it come",
            )
