"""The limits of the sections of one replica, and the search for what stands against smaller ones (ADR 33)."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from ckpt_protocol import codes
from ckpt_protocol.errors import FrameError, RequestError
from ckptd.core.content.resize_state import ResizeState, parse_resize_state
from ckptd.core.content.section import PreImages, Section
from ckptd.core.directory.attributes import Attributes, Limits

_FIELDS_OF_RESIZE = 8
"""The operation between nodes. A client's has fewer fields, and is done at the active replica."""


class LimitsInForce:
    """The limits that a table of sections has now."""

    __slots__ = (
        "attributes",
        "limits_before",
        "quick_bytes_max",
        "resize_state",
        "search",
        "section_bytes_cap",
    )

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        """Those of the creation, with the limits that are in force here."""
        self.section_bytes_cap = self.quick_bytes_max = attributes.section_bytes_cap
        """`quick_bytes_max`: a content up to this size needs no closer look. It is less than
        `section_bytes_cap` while a search goes on."""
        self.resize_state = ResizeState(0, attributes.limits, attributes.limits)
        self.limits_before: tuple[int, Limits] = (0, attributes.limits)
        """The seq of the update that last changed the limits, and the limits before it."""
        self.search: ContentSearch | None = None
        """What the active replica looks for, before it orders a resize."""

    def replace_limits(self, state: ResizeState, seq: int) -> None:
        """Replace the limits with those of another replica's content, which has updates up to this seq.

        Any of those may be the one that changed them. What was known of former ones belonged to the content
        that was here before.
        """
        self.limits_before = seq, state.in_force
        self.put_limits(state)

    def put_limits(self, state: ResizeState) -> None:
        """Replace the limits."""
        self.resize_state = state
        self.attributes = self.attributes.with_limits(state.in_force)
        self.section_bytes_cap = self.attributes.section_bytes_cap
        self.end_search()

    def committed_limits(self, committed_seq: int) -> Limits:
        """Return the limits after the update with this seq. (There is one resize at a time.)"""
        seq, before = self.limits_before
        return self.resize_state.in_force if seq <= committed_seq else before

    def apply_resize(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        """Replace the limits, as an update says."""
        if len(op) < _FIELDS_OF_RESIZE:
            raise RequestError(codes.INVALID_PARAM, "to resize is an update of its own")
        try:
            state = parse_resize_state(op[1:])
        except FrameError as error:
            raise RequestError(codes.INVALID_PARAM, str(error)) from None
        self.limits_before = seq, self.resize_state.in_force
        self.put_limits(state)

    def begin_search(self, sections: dict[bytes, Section], limits: Limits) -> "ContentSearch":
        """Begin to look for a section that is too large for these limits, or whose id is."""
        self.search = ContentSearch(sections, limits)
        self.quick_bytes_max = min(self.section_bytes_cap, limits.section_bytes_max)
        return self.search

    def end_search(self) -> None:
        self.search = None
        self.quick_bytes_max = self.section_bytes_cap


class ContentSearch:
    """A search for a section that is too large for new limits, in portions, while writes go on.

    It looks at each section that is there when it begins. What is written meanwhile, and is too large, is
    noted, and looked at again. So when it is complete, every section fits.
    """

    __slots__ = ("_noted", "_sections", "_unseen", "complete", "limits")

    def __init__(self, sections: dict[bytes, Section], limits: Limits) -> None:
        self.limits = limits
        self._sections = sections
        self._unseen: Iterator[bytes] = iter(list(sections))
        self._noted: dict[bytes, None] = {}
        self.complete = False
        """True if all sections were scanned, and fit."""

    def note(self, section_id: bytes, section: Section) -> None:
        """Take note of a section that is written."""
        if self._is_too_large(section_id, section):
            self._noted[section_id] = None

    def _is_too_large(self, section_id: bytes, section: Section) -> bool:
        limits = self.limits
        return (
            len(section.content) > limits.section_bytes_max or len(section_id) > limits.section_id_bytes_max
        )

    def scan_some(self, count_max: int) -> tuple[int, bytes | None]:
        """Scan what was noted, and up to so many other sections.

        Return how many these were, and the id of one that is too large. What was noted is scanned whole: the
        writes that made it have counted as work, and more of it could come at once than `count_max`.
        """
        count = 0
        while self._noted:
            count += 1
            section_id, _ = self._noted.popitem()
            if self._is_found(section_id):
                return count, section_id
        for section_id in islice(self._unseen, count_max):
            count += 1
            count_max -= 1
            if self._is_found(section_id):
                return count, section_id
        self.complete = count_max > 0
        return count, None

    def _is_found(self, section_id: bytes) -> bool:
        section = self._sections.get(section_id)
        return section is not None and self._is_too_large(section_id, section)
