"""One process writes, another is told of it and reads what was written: OpenSAF's B.02.03.

pyosaf_tracking.py tracker COUNT     ready when it says "tracking"; ends after COUNT callbacks
pyosaf_tracking.py writer
"""

import sys
from ctypes import POINTER, byref, c_void_p, cast, create_string_buffer, pointer, string_at
from select import select

from pyosaf import saAis, saCkpt
from pyosaf.saAis import SaUint8T, eSaAisErrorT, eSaDispatchFlagsT

NAME = saAis.SaNameT(b"safCkpt=tracked,safApp=pyosaf")
ATTRIBUTES = saCkpt.SaCkptCheckpointCreationAttributesT(
    saCkpt.saCkpt.SA_CKPT_WR_ALL_REPLICAS, 400, saAis.saAis.SA_TIME_ONE_MINUTE, 4, 100, 16
)
HANDLE = saCkpt.SaCkptHandleT()
CHECKPOINT = saCkpt.SaCkptCheckpointHandleT()
told = []


def check(rc, what):
    """Check that a call succeeded."""
    if rc != eSaAisErrorT.SA_AIS_OK:
        sys.exit("%s: %s" % (what, eSaAisErrorT.whatis(rc)))


def section_id(text):
    """Return a section id."""
    return saCkpt.SaCkptSectionIdT(len(text), cast(create_string_buffer(text), POINTER(SaUint8T)))


def changed(checkpoint, elements, count):
    """The callback: read what was written."""
    lines = []
    for place in range(count):
        element = elements[place]
        text = string_at(element.sectionId.id, element.sectionId.idLen).decode()
        content = create_string_buffer(max(element.dataSize, 1))
        mine = saCkpt.SaCkptIOVectorElementT(
            element.sectionId, cast(byref(content), c_void_p), element.dataSize, element.dataOffset, 0
        )
        rc = saCkpt.saCkptCheckpointRead(checkpoint, mine, 1, None)
        read = (
            content.raw[: mine.readSize].decode() if rc == eSaAisErrorT.SA_AIS_OK else eSaAisErrorT.whatis(rc)
        )
        lines.append("%s@%d+%d=%s" % (text, element.dataOffset, element.dataSize, read))
    told.append(lines)
    print(" ".join(lines), flush=True)


def start():
    """Initialize with a callback, and open the checkpoint."""
    callbacks = saCkpt.SaCkptCallbacksT_2()
    callbacks.saCkptCheckpointTrackCallback = saCkpt.SaCkptCheckpointTrackCallbackT(changed)
    version = saAis.SaVersionT(b"B", 2, 3)
    check(saCkpt.saCkptInitialize_2(HANDLE, callbacks, version), "initialize")
    check(saCkpt.saCkptCheckpointOpen(HANDLE, NAME, ATTRIBUTES, 7, 10**10, CHECKPOINT), "open")


def track(count):
    """Dispatch until this many callbacks have come."""
    selection_object = saAis.SaSelectionObjectT()
    check(saCkpt.saCkptTrack(HANDLE), "track")
    check(saCkpt.saCkptSelectionObjectGet(HANDLE, selection_object), "selection object")
    print("tracking", flush=True)
    while len(told) < count:
        select([selection_object.value], [], [], 30)
        check(saCkpt.saCkptDispatch(HANDLE, eSaDispatchFlagsT.SA_DISPATCH_ALL), "dispatch")
    check(saCkpt.saCkptTrackStop(HANDLE), "stop")


def write():
    """Make three updates: create two sections, and write both with one call."""
    for text in (b"a", b"b"):
        creation = saCkpt.SaCkptSectionCreationAttributesT(pointer(section_id(text)), saAis.saAis.SA_TIME_END)
        check(saCkpt.saCkptSectionCreate(CHECKPOINT, creation, b"new", 3), "create")
    contents = [create_string_buffer(b"12"), create_string_buffer(b"345")]
    vector = saCkpt.createSaCkptIOVector(2)
    for place, text in enumerate((b"a", b"b")):
        vector[place].sectionId = section_id(text)
        vector[place].dataBuffer = cast(contents[place], c_void_p)
        vector[place].dataSize = len(contents[place].value)
        vector[place].dataOffset = place
    check(saCkpt.saCkptCheckpointWrite(CHECKPOINT, vector[0], 2, None), "write")


if __name__ == "__main__":
    start()
    if sys.argv[1] == "tracker":
        track(int(sys.argv[2]))
    else:
        write()
    check(saCkpt.saCkptCheckpointClose(CHECKPOINT), "close")
    check(saCkpt.saCkptFinalize(HANDLE), "finalize")
