"""Frames that overtook the directory operation that creates their checkpoint."""

from collections.abc import Iterator
from typing import Final

from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind
from ckptd.core.directory.directory import Directory

FRAMES_AHEAD_MAX: Final = 10_000
"""Frames of a view that this node does not run yet, and as many of checkpoints that it does not know of yet.

Further ones are dropped. Those of a view are sent again in that view. Because of the others a replica is not
in sync in time, and joins again.
"""


class UnknownCheckpoints:
    """Frames of checkpoints that the directory here does not have yet, each with its sender."""

    def __init__(self) -> None:
        self.by_id: dict[int, list[tuple[str, Frame]]] = {}
        self.count = 0

    def keep(self, directory: Directory, node_id: str, frame: Frame) -> None:
        """Keep a frame, if its checkpoint may still be created."""
        if frame.kind not in (Kind.REPLICATE, Kind.COMMIT, Kind.ACK, Kind.JOIN):
            return
        if self.count < FRAMES_AHEAD_MAX and directory.may_still_be_created(frame.a):
            self.count += 1
            self.by_id.setdefault(frame.a, []).append((node_id, frame))

    def pop(self, creation_id: int) -> Iterator[tuple[str, Frame]]:
        """Yield the frames of a checkpoint that is known now."""
        for kept in self.by_id.pop(creation_id, []):
            self.count -= 1
            yield kept

    def clear(self) -> None:
        """Forget everything: in a new view it is sent again."""
        self.by_id.clear()
        self.count = 0
