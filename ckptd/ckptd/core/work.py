"""What things cost, in units of counted work: about a microsecond each.

The core has no clock, so that a seed or a recording shows the same turns again. It counts instead what it
does: requests, operations, sections, rows and bytes. `python -m bench.budget` measures what a unit takes.
"""

from typing import Final

FRAME_WORK: Final = 20
"""A client's request, from its frame to its answer or to the frames that carry it on."""

PEER_WORK: Final = 8
"""A frame of another node."""

OP_WORK: Final = 3
"""A section operation of an update."""

ELEMENT_WORK: Final = 1
"""A section that is read or looked at."""

ROW_WORK: Final = 2
"""A change that a tracker is told of."""

KIB_SHIFT: Final = 10
"""Bytes that are copied, to work: one unit for a KiB."""
