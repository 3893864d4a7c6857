"""The cost of operations, in units of counted work: about a microsecond each.

The core has no clock, so that a seed or a recording repeats the same turns. Instead it counts what it does:
requests, operations, sections, rows and bytes. `python -m bench.budget` measures how long a unit takes.
"""

from typing import Final

FRAME_WORK: Final = 20
"""A client's request, from its frame to its answer or to the frames that carry it on."""

PEER_WORK: Final = 8
"""A frame from another node."""

OP_WORK: Final = 3
"""A section operation of an update."""

ELEMENT_WORK: Final = 1
"""A section that is read or looked at."""

ROW_WORK: Final = 2
"""A change that is reported to a tracker."""

PENDING_SHIFT: Final = 4
"""Shift from sections that are looked up in pending updates to work: one unit for sixteen."""

PASSED_SHIFT: Final = 3
"""Shift from ids tried for a new section, or checkpoints that a description skips, to work: one for eight."""

REFUSED_SHIFT: Final = 2
"""Shift from bytes of a refused body to work: one unit for four.

Such a body is first unpacked and then checked in the slow way that finds out what is wrong: 128 KiB of
lists take 30 ms.
"""

LEADERSHIP_SHIFT: Final = 6
"""Shift from bytes of a changed leadership to work: one unit for 64 bytes.

It is packed and parsed as a whole: 37 KB, with 100 programs that wait, take 460 us.
"""

KIB_SHIFT: Final = 10
"""Shift from bytes that are copied to work: one unit per KiB."""
