"""OpenSAF's tracking, B.02.03: a callback for each modifying call on what a library instance reads.

An instance that tracks follows every checkpoint that it has open for reading, now or later. The elements name
the section, the offset and the number of bytes; the program reads the data itself. A handle is not notified
of its own writes.

Source: R142 to R144.
"""

import ctypes
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.pyosaf.handles import Library, Open
from ckpt_client.pyosaf.structures import SaCkptIOVectorElementT, SaCkptSectionIdT
from ckpt_client.pyosaf.types import SaUint8T
from ckpt_client.saf import SectionChange, SectionChangeT
from ckpt_client.saf.types import Version
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_DISPATCH_ONE

HIGHEST: Final[Version] = ("B", 2, 3)
"""B.02.02 with tracking: only this package offers it."""

_dispatching: Final = threading.local()
"""`one` is True while this thread dispatches a single callback."""


def dispatch(library: Library, flags: int) -> None:
    """Call what is pending. ONE is a single callback, even if several updates came together (R17)."""
    _dispatching.one = flags == SA_DISPATCH_ONE
    try:
        library.service.dispatch(flags)
    finally:
        _dispatching.one = False


def start(library: Library) -> None:
    """Begin to track. After an error nothing is tracked. Raises: VERSION below B.2.3; INIT: no callback."""
    if library.required < HIGHEST:
        raise error_of(codes.VERSION, "tracking needs version B.2.3")
    if library.callbacks.tracked is None:
        raise error_of(codes.SaAisErrorT.SA_AIS_ERR_INIT, "no callback for tracking is set")
    limit = TimeLimit(None, library.service.inner.timeout_ns)
    with library.tracking_changes:
        library.tracking = True
        try:
            for opened in list(library.checkpoints.values()):
                follow(opened, limit)
        except SaAisError:
            stop(library)
            raise


def stop(library: Library) -> None:
    """Stop tracking. Raises: VERSION below B.2.3, NOT_EXIST if the instance does not track."""
    if library.required < HIGHEST:
        raise error_of(codes.VERSION, "tracking needs version B.2.3")
    with library.tracking_changes:
        if not library.tracking:
            raise error_of(codes.NOT_EXIST, "this instance is not tracking")
        library.tracking = False
        for opened in list(library.checkpoints.values()):
            if opened.followed:
                opened.followed = False
                opened.untold.clear()
                with suppress(SaAisError):  # A handle that the service has ended is not tracked any more.
                    opened.checkpoint.track_stop()


def follow(opened: Open, limit: TimeLimit) -> None:
    """Report a checkpoint's changes, if its instance tracks and it was opened for reading."""
    library = opened.library
    callback = library.callbacks.tracked
    if callback is None or not opened.readable:
        return

    def tell(_checkpoint: object, changes: Iterable[SectionChange]) -> None:
        updates = list(told(changes))
        opened.untold.extend(updates)
        if getattr(_dispatching, "one", False):
            for _ in updates[1:]:
                library.service.put(opened.checkpoint, tell_next)
            updates = updates[:1]
        for _ in updates:
            tell_next()

    def tell_next() -> None:
        if opened.untold:
            elements = opened.untold.popleft()
            callback(opened.number, io_vector(elements), len(elements))

    with library.tracking_changes:
        if library.tracking and not opened.followed:
            opened.checkpoint.track(tell, limit.left_ns())
            opened.followed = True


def told(changes: Iterable[SectionChange]) -> Iterator[list[SectionChange]]:
    """Yield the changes that OpenSAF reports, one list for each modifying call.

    An expiration is not a call, and a section that is created empty has no data; both are left out.
    """
    for _, update in groupby(changes, key=attrgetter("sequence")):
        elements = [
            change
            for change in update
            if change.change not in (SectionChangeT.EXPIRED, SectionChangeT.ENDED)
            and (change.change != SectionChangeT.CREATED or change.data_size)
        ]
        if elements:
            yield elements


def io_vector(changes: Sequence[SectionChange]) -> Any:
    """Return the changes as an array of elements without data. It keeps alive what its ids point to."""
    array = (SaCkptIOVectorElementT * len(changes))()
    for element, change in zip(array, changes, strict=True):
        element.sectionId = section_id_structure(change.section_id)
        element.dataOffset = change.data_offset
        element.dataSize = change.data_size
    return array


def section_id_structure(section_id: bytes) -> SaCkptSectionIdT:
    """Return a section's id as a structure that owns its bytes."""
    if not section_id:
        return SaCkptSectionIdT(0, None)
    owned = (SaUint8T * len(section_id)).from_buffer_copy(section_id)
    return SaCkptSectionIdT(len(section_id), ctypes.cast(owned, ctypes.POINTER(SaUint8T)))
