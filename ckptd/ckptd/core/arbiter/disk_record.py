"""The record that a node keeps on its disk: what it must not forget when it restarts. Packed and parsed."""

from dataclasses import dataclass
from typing import Final

from ckpt_protocol.body_codec import bounded_array, pack_body
from ckpt_protocol.bounds_by_kind import VIEW_BOUNDS
from ckpt_protocol.field_checks import array, whole
from ckpt_protocol.limits import EPOCH_MAX, FAULTS_MAX
from ckptd.core.parse_views import Ballot, parse_ballot, parse_view
from ckptd.core.stops_by_bugs import Stop, parse_stop
from ckptd.core.view import View

NO_BALLOT: Final[Ballot] = (0, "")

NEVER_RECORDED: Final = -1
"""Value of `installed_epoch` after a start with an empty disk, until a view is installed.

Before the disk was lost, any view may have been installed.
"""

ANY_EPOCH: Final = 2**62
"""What an empty disk reports for earlier incarnations: they may have installed any view."""


@dataclass(slots=True)
class DiskRecord:
    """A node's register, the epoch of the last view that it installed, and the stops that it knows of."""

    promised: Ballot = NO_BALLOT
    accepted: Ballot = NO_BALLOT
    view: View | None = None
    installed_epoch: int = 0
    stops: tuple[Stop, ...] = ()
    outlived_epoch: int = 0
    """The epoch of the last view that an operator forced here and in which nobody can serve any more.

    The register may take a view of a lower epoch afterwards, since forced views are decided beside it. Then
    nothing else says that nobody needs to wait for the forced one (seed 7238163). 0: there was no such view.
    """

    def pack(self) -> bytes:
        view = self.view.fields() if self.view else None
        stops = [stop.fields() for stop in self.stops]
        outlived = [self.outlived_epoch] if self.outlived_epoch else []
        return pack_body(
            [list(self.promised), list(self.accepted), view, self.installed_epoch, stops, *outlived]
        )


def parse_disk_record(packed: bytes) -> DiskRecord:
    """Unpack a record as `Persist` wrote it; b"" is an empty disk. Raises: FrameError."""
    if not packed:
        return DiskRecord(installed_epoch=NEVER_RECORDED)
    promised, accepted, view, installed, *more = bounded_array(packed, VIEW_BOUNDS, 4)
    return DiskRecord(
        parse_ballot(promised),
        parse_ballot(accepted),
        parse_view(view) if view is not None else None,
        whole(installed, "an epoch", EPOCH_MAX, NEVER_RECORDED),
        tuple(parse_stop(row) for row in array(more[0], "stops", FAULTS_MAX)) if more else (),
        whole(more[1], "an epoch", EPOCH_MAX) if len(more) > 1 else 0,
    )
