"""Which changes of a checkpoint a program wants to see: of which sections, and whether with values."""

from typing import Final, NamedTuple

from ckpt_client.requests import mapping_requests
from ckpt_protocol.limits import TRACK_PREFIX_BYTES_MAX

_LAST_ID: Final = b"\xff" * 8
"""Behind a byte: an id that hardly any other with this byte follows."""


class Chosen(NamedTuple):
    """Which changes are reported, and how."""

    prefix: bytes = b""
    """Only those of sections whose id begins with this."""

    exact: bool = False
    """Only those of the section whose id is `prefix`."""

    values: bool = False
    """With the content of the section; changes of a section that come together are one."""

    def covers(self, section_id: bytes) -> bool:
        """Return True if the changes of this section are reported."""
        return section_id == self.prefix if self.exact else section_id.startswith(self.prefix)

    @property
    def before(self) -> bytes | None:
        """An id after which a page begins that has all chosen sections; None: the first page."""
        prefix = self.prefix
        if not prefix:
            return None
        last = prefix[-1]
        return prefix[:-1] + (bytes((last - 1,)) + _LAST_ID if last else b"")

    def ends(self, section_id: bytes) -> bool:
        """Return True if no section with a higher id is chosen."""
        return section_id > self.prefix and (self.exact or not section_id.startswith(self.prefix))

    def body(self, sequence: int | None, lineage: int) -> bytes:
        """Return the body of TRACK."""
        prefix = self.prefix[:TRACK_PREFIX_BYTES_MAX]
        exact = self.exact and prefix == self.prefix
        return mapping_requests.track_body(sequence, lineage, self.values, prefix, exact)


ALL: Final = Chosen()
