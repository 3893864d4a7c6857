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

PENDING_SHIFT: Final = 4
"""Sections that are looked up in pending updates, to work: one unit for sixteen."""

PASSED_SHIFT: Final = 3
"""Ids that are tried for a new section, checkpoints that a description passes over: one unit for eight."""

REFUSED_SHIFT: Final = 2
"""Bytes of a body that is refused, to work: one unit for four.

It is built first, and then looked at in the slow way, which tells what is wrong: 128 KiB of lists take 30 ms.
"""

KIB_SHIFT: Final = 10
"""Bytes that are copied, to work: one unit for a KiB."""
