"""One section: its content, its times and its version."""

from typing import Final

from ckpt_protocol.constants import SA_CKPT_SECTION_CORRUPTED, SA_CKPT_SECTION_VALID

VALID: Final = SA_CKPT_SECTION_VALID
CORRUPTED: Final = SA_CKPT_SECTION_CORRUPTED


class Section:
    """One section. An update replaces it and does not change it, so what a reader has stays as it was.

    `seq` is the seq of the update that last changed it; times are ns since 1970. `version` is what the active
    replica gave that change (`version_of_change`). It travels with the section and never changes.
    """

    __slots__ = ("content", "expiration_ns", "last_update_ns", "seq", "state", "version")

    def __init__(
        self,
        content: bytes,
        expiration_ns: int,
        last_update_ns: int,
        seq: int,
        version: int,
        state: int = VALID,
    ) -> None:
        self.content = content
        self.expiration_ns = expiration_ns
        self.last_update_ns = last_update_ns
        self.seq = seq
        self.version = version
        self.state = state


PreImages = dict[bytes, Section | None]
"""The previous section under each id that an update touched; None if there was none."""
