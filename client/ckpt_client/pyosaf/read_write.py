"""Write, overwrite and read the contents of sections.

Source: SAF 3.7; R115 to R133.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ckpt_client.errors import SaAisError
from ckpt_client.pyosaf.arguments import (
    address_of,
    content,
    io_vector_of,
    is_null,
    number,
    reference,
    refuse,
    returns_code,
    section_id_of,
)
from ckpt_client.pyosaf.checkpoints import open_of
from ckpt_client.pyosaf.handles import READ_BUFFERS
from ckpt_client.pyosaf.structures import SaCkptIOVectorElementT
from ckpt_client.pyosaf.types import SaSizeT, SaUint32T

Result = TypeVar("Result")


@returns_code
def saCkptCheckpointWrite(
    checkpointHandle: Any, ioVector: Any, numberOfElements: Any, erroneousVectorIndex: Any
) -> None:
    """Write several elements, all or none. `erroneousVectorIndex` gets the lowest at fault; it may be None.

    Source: SAF 3.7.1; R115 to R123.
    """
    elements = io_vector_of(ioVector, number(SaUint32T, numberOfElements))
    opened = open_of(checkpointHandle)

    def write() -> None:
        opened.checkpoint.write(
            [
                (
                    section_id_of(element.sectionId, index),
                    content(element.dataBuffer, element.dataSize, "the data", index),
                    element.dataOffset,
                )
                for index, element in enumerate(elements)
            ]
        )

    _telling_index(erroneousVectorIndex, write)


@returns_code
def saCkptSectionOverwrite(checkpointHandle: Any, sectionId: Any, dataBuffer: Any, dataSize: Any) -> None:
    """Replace a section's content and size. Source: SAF 3.7.2; R124, R125."""
    section_id = section_id_of(sectionId)
    size = number(SaSizeT, dataSize)
    if is_null(dataBuffer):
        refuse("the data is NULL")
    data = content(dataBuffer, size, "the data")
    open_of(checkpointHandle).checkpoint.overwrite(section_id, data)


@returns_code
def saCkptCheckpointRead(
    checkpointHandle: Any, ioVector: Any, numberOfElements: Any, erroneousVectorIndex: Any
) -> None:
    """Read several elements, all of the same moment, into their own buffers or into the library's.

    Source: SAF 3.7.3; R126 to R133.
    """
    elements = io_vector_of(ioVector, number(SaUint32T, numberOfElements))
    opened = open_of(checkpointHandle)

    def read() -> list[bytes]:
        return opened.checkpoint.read(
            [
                (
                    section_id_of(element.sectionId, index),
                    element.dataSize if element.dataBuffer else None,
                    element.dataOffset,
                )
                for index, element in enumerate(elements)
            ]
        )

    _fill(elements, _telling_index(erroneousVectorIndex, read))


@returns_code
def saCkptIOVectorElementDataFree(checkpointHandle: Any, data: Any) -> None:
    """Free a buffer that the library allocated. Source: R132."""
    address = address_of(data)
    if address == 0:
        refuse("the data is NULL")
    open_of(checkpointHandle)
    if not READ_BUFFERS.free(address):
        refuse("the library did not allocate this buffer, or it was freed before")


def _telling_index(place: Any, call: Callable[[], Result]) -> Result:
    """Return the call's result. If it fails, put the index of the element at fault into `place` (R121)."""
    index = reference(SaUint32T, place)
    try:
        return call()
    except SaAisError as error:
        if index is not None and error.index >= 0:
            index.value = error.index
        raise


def _fill(elements: Sequence[SaCkptIOVectorElementT], pieces: Sequence[bytes]) -> None:
    """Put what was read into the elements. A program's buffer gets no more than its size."""
    for element, piece in zip(elements, pieces, strict=True):
        if element.dataBuffer:
            piece = piece[: element.dataSize]
            ctypes.memmove(element.dataBuffer, piece, len(piece))
        else:
            element.dataBuffer = READ_BUFFERS.allocate(piece)
        element.readSize = len(piece)
