"""A counter that continues where the program before it stopped, as an active component keeps its state.

pyosaf_counter.py STEPS
"""

import sys
from ctypes import byref, c_void_p, cast, pointer, sizeof

from pyosaf import saAis, saCkpt
from pyosaf.saAis import SaNameT, SaUint8T, SaUint32T, SaVersionT, eSaAisErrorT

NAME = SaNameT(b"safCkpt=counter,safApp=pyosaf")
SECTION = b"count"


def section_id():
    """Return the id of the counter's section."""
    return saCkpt.SaCkptSectionIdT(len(SECTION), (SaUint8T * len(SECTION))(*bytearray(SECTION)))


def check(function, rc):
    """End the program if a call fails."""
    if rc != eSaAisErrorT.SA_AIS_OK:
        print("%s: %s" % (function, eSaAisErrorT.whatis(rc)))
        sys.exit(1)


class Counter:
    """The number in the checkpoint."""

    def __init__(self):
        self.handle = saCkpt.SaCkptHandleT()
        self.checkpoint = saCkpt.SaCkptCheckpointHandleT()

    def open(self):
        """Initialize, and open the checkpoint."""
        callbacks = saCkpt.SaCkptCallbacksT()
        version = SaVersionT(b"B", 2, 2)
        check("saCkptInitialize", saCkpt.saCkptInitialize(self.handle, callbacks, version))
        attributes = saCkpt.SaCkptCheckpointCreationAttributesT()
        attributes.creationFlags = saCkpt.saCkpt.SA_CKPT_WR_ALL_REPLICAS
        attributes.checkpointSize = sizeof(SaUint32T)
        attributes.retentionDuration = saAis.saAis.SA_TIME_ONE_MINUTE
        attributes.maxSections = 2
        attributes.maxSectionSize = sizeof(SaUint32T)
        attributes.maxSectionIdSize = 16
        flags = (
            saCkpt.saCkpt.SA_CKPT_CHECKPOINT_CREATE
            | saCkpt.saCkpt.SA_CKPT_CHECKPOINT_READ
            | saCkpt.saCkpt.SA_CKPT_CHECKPOINT_WRITE
        )
        rc = saCkpt.saCkptCheckpointOpen(
            self.handle, NAME, attributes, flags, saAis.saAis.SA_TIME_ONE_SECOND * 10, self.checkpoint
        )
        check("saCkptCheckpointOpen", rc)

    def read(self):
        """Return the number, 0 if there is none yet."""
        number = SaUint32T(0)
        element = saCkpt.SaCkptIOVectorElementT(
            section_id(), cast(byref(number), c_void_p), sizeof(number), 0, 0
        )
        rc = saCkpt.saCkptCheckpointRead(self.checkpoint, element, 1, None)
        if rc == eSaAisErrorT.SA_AIS_ERR_NOT_EXIST:
            return 0
        check("saCkptCheckpointRead", rc)
        assert element.readSize == sizeof(number)
        return number.value

    def write(self, value):
        """Overwrite the section, or create it."""
        number = SaUint32T(value)
        section = section_id()
        rc = saCkpt.saCkptSectionOverwrite(self.checkpoint, section, byref(number), sizeof(number))
        if rc == eSaAisErrorT.SA_AIS_ERR_NOT_EXIST:
            attributes = saCkpt.SaCkptSectionCreationAttributesT(pointer(section), saAis.saAis.SA_TIME_END)
            rc = saCkpt.saCkptSectionCreate(self.checkpoint, attributes, pointer(number), sizeof(number))
        check("writing", rc)

    def close(self):
        """Close, and finalize."""
        check("saCkptCheckpointClose", saCkpt.saCkptCheckpointClose(self.checkpoint))
        check("saCkptFinalize", saCkpt.saCkptFinalize(self.handle))


if __name__ == "__main__":
    counter = Counter()
    counter.open()
    count = counter.read()
    for _ in range(int(sys.argv[1])):
        count += 1
        counter.write(count)
    print("count %d" % counter.read())
    counter.close()
