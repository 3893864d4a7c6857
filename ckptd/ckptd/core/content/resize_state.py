"""The limits of a checkpoint, and the resize that changes them: a part of its content (ADR 33).

It changes as a whole, by an update of its own, so that every replica has the same limits at the same place in
the sequence of updates. The active replica decides what changes, and when (`replication.resizing`).
"""

from typing import Any, NamedTuple

from ckpt_protocol.field_checks import U64_MAX, whole
from ckpt_protocol.limits import SECTION_ID_BYTES_MAX, SECTIONS_MAX, SIZE_MAX
from ckptd.core.directory.attributes import Limits


class ResizeState(NamedTuple):
    """The limits of a checkpoint, after so many resizes.

    What shrinks is in force at once. What grows is only wanted, until the directory has it.
    """

    number: int
    """Of the last resize; 0: there was none. The directory has the number of the last one that it knows."""
    in_force: Limits
    wanted: Limits

    @property
    def complete(self) -> bool:
        """Return True if all that is wanted is in force."""
        return self.in_force == self.wanted

    def resize(self, limits: Limits) -> "ResizeState":
        """Return what follows when a resize to these limits is ordered."""
        return ResizeState(self.number + 1, self.in_force.at_most(limits), limits)

    def complete_growth(self) -> "ResizeState":
        """Return what follows when the directory has the limits that are wanted."""
        return self._replace(in_force=self.wanted)

    def fields(self) -> list[int]:
        """Return this as it is sent."""
        return [self.number, *self.in_force, *self.wanted]


def parse_resize_state(fields: list[Any]) -> ResizeState:
    """Parse what `ResizeState.fields` makes; later versions may add to it. Raises: FrameError."""
    return ResizeState(
        whole(fields[0], "a resize's number", U64_MAX), parse_limits(fields[1:4]), parse_limits(fields[4:7])
    )


def parse_limits(fields: list[Any]) -> Limits:
    """Parse the three limits. Raises: FrameError."""
    sections_max, section_bytes_max, section_id_bytes_max = fields
    return Limits(
        whole(sections_max, "a number of sections", SECTIONS_MAX, 1),
        whole(section_bytes_max, "a section's size", SIZE_MAX, 1),
        whole(section_id_bytes_max, "an id's size", SECTION_ID_BYTES_MAX),
    )
