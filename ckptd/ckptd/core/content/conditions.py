"""Conditions of an update: what must be true of some sections before any of its changes is made.

The active replica judges them against the staged sections, at the update's place in the sequence. No other
replica judges them again (ADR 30).
"""

from typing import NamedTuple

from ckpt_protocol.parse_updates import Ops
from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.content.section import VALID, Section


class Conflict(NamedTuple):
    """The first condition that does not hold."""

    position: int
    text: str
    version: bytes | None
    """The version of the section as it is, as clients see it; None if there is no such section."""


def find_conflict(replica: ReplicaContent, conditions: Ops) -> Conflict | None:
    """Return the first condition that does not hold, or None if all hold."""
    for position, (_, section_id, wanted) in enumerate(conditions):
        section = replica.sections.sections.get(section_id)
        why = _why_not(replica, section, wanted)
        if why:
            version = replica.shown_version(section.version) if section is not None else None
            return Conflict(position, f"section {section_id[:32]!r} {why}", version)
    return None


def _why_not(replica: ReplicaContent, section: Section | None, wanted: bytes | bool | None) -> str:
    """Return why a section is not as a condition wants it; "" if it is."""
    if section is None:
        return "" if wanted is None else "does not exist"
    if wanted is None:
        return "exists"
    if wanted is True:
        return ""
    if section.state != VALID:
        return "is corrupted, and has no version that can be required"
    return "" if wanted == replica.shown_version(section.version) else "has another version"
