"""Which limits each checkpoint may have, as the clients that resize it know, and what contradicts that.

A checkpoint is resized by one client only, which makes one call at a time. So that client knows the limits in
force, unless the outcome of one of its resizes is unknown: that one may be done at any time.
"""

from dataclasses import dataclass, field

SimLimits = tuple[int, int, int]
"""The number of sections, the bytes of a section and the bytes of an id."""


@dataclass(slots=True)
class KnownLimits:
    """What is known of the limits of one creation of a checkpoint."""

    in_force: SimLimits
    """After the last resize that was answered with OK."""

    asked: list[SimLimits] = field(default_factory=list)
    """All that were ever in force, or may have been."""

    doubtful: list[SimLimits] = field(default_factory=list)
    """The resizes whose outcome is unknown."""

    wrong: list[str] = field(default_factory=list)
    """What contradicts this."""

    @property
    def certain(self) -> bool:
        """True if no other limits than `in_force` can be in force."""
        return not self.doubtful

    def may_show(self, limits: SimLimits) -> bool:
        """Return True if these limits were in force at some time, or may have been.

        What shrinks is in force earlier than what grows, so they may be of more than one resize.
        """
        return all(
            limit in values for limit, values in zip(limits, zip(*self.asked, strict=True), strict=True)
        )


class LimitsHistory:
    """The limits of all creations of all checkpoints."""

    def __init__(self) -> None:
        self.by_creation: dict[int, KnownLimits] = {}

    def known(self, creation_id: int, attributes: list[int]) -> KnownLimits:
        """Return what is known of a creation; at first its limits are those of its attributes."""
        if creation_id not in self.by_creation:
            limits = limits_of(attributes)
            self.by_creation[creation_id] = KnownLimits(limits, [limits])
        return self.by_creation[creation_id]


def limits_of(attributes: list[int]) -> SimLimits:
    """Return the limits in creation attributes, as they travel."""
    sections, section_bytes, id_bytes = attributes[3:6]
    return sections, section_bytes, id_bytes


def with_limits(attributes: list[int], limits: SimLimits) -> list[int]:
    """Return attributes with other limits."""
    return [attributes[0], limits[0] * limits[1], attributes[2], *limits]
