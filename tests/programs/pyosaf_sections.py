"""Makes sections, fills some of them with one call, lists them all, reads them into the library's buffers.

pyosaf_sections.py
"""

import sys
import time
from ctypes import POINTER, c_char_p, cast, create_string_buffer, pointer, string_at

from pyosaf import saAis, saCkpt

OK = saAis.eSaAisErrorT.SA_AIS_OK
NEVER = saAis.saAis.SA_TIME_END
ANY = saCkpt.eSaCkptSectionsChosenT.SA_CKPT_SECTIONS_ANY


def expect(what, rc, wanted=OK):
    """Check a result; the error names the call."""
    if rc != wanted:
        sys.exit("%s gives %s" % (what, saAis.eSaAisErrorT.whatis(rc)))


def id_of(text):
    """Return a section id from text, as a pointer into a string buffer."""
    buffer = create_string_buffer(text)
    return saCkpt.SaCkptSectionIdT(len(text), cast(buffer, POINTER(saAis.SaUint8T)))


def main():
    """Do everything, in order."""
    handle = saCkpt.SaCkptHandleT()
    expect("initialize", saCkpt.saCkptInitialize(handle, None, saAis.SaVersionT(b"B", 2, 1)))
    name = saAis.SaNameT()
    name.value = b"safCkpt=sections"
    name.length = len(name.value)
    constants = saCkpt.saCkpt
    attributes = saCkpt.SaCkptCheckpointCreationAttributesT(
        constants.SA_CKPT_WR_ALL_REPLICAS, 10 * 64, saAis.saAis.SA_TIME_ONE_MINUTE, 10, 64, 32
    )
    checkpoint = saCkpt.SaCkptCheckpointHandleT()
    expect("open", saCkpt.saCkptCheckpointOpen(handle, name, attributes, 7, 10**10, checkpoint))

    hour = int(time.time() + 3600) * 10**9
    for text, expires in ((b"first", NEVER), (b"second", NEVER), (b"third", hour)):
        creation = saCkpt.SaCkptSectionCreationAttributesT(pointer(id_of(text)), expires)
        expect("create", saCkpt.saCkptSectionCreate(checkpoint, creation, None, 0))
    generated = saCkpt.SA_CKPT_GENERATED_SECTION_ID()
    creation = saCkpt.SaCkptSectionCreationAttributesT(pointer(generated), NEVER)
    expect("create", saCkpt.saCkptSectionCreate(checkpoint, creation, b"generated", 9))

    contents = [create_string_buffer(b"one", 3), create_string_buffer(b"two", 3)]
    vector = saCkpt.createSaCkptIOVector(2)
    for element, text, content in zip(vector, (b"first", b"second"), contents):
        element.sectionId = id_of(text)
        element.dataBuffer = cast(content, saAis.SaVoidPtr)
        element.dataSize = 3
    index = saAis.SaUint32T()
    expect("write", saCkpt.saCkptCheckpointWrite(checkpoint, vector[0], len(vector), index))

    status = saCkpt.SaCkptCheckpointDescriptorT()
    expect("status", saCkpt.saCkptCheckpointStatusGet(checkpoint, status))
    print("%d sections, %d bytes" % (status.numberOfSections, status.memoryUsed))

    iteration = saCkpt.SaCkptSectionIterationHandleT()
    expect("iterate", saCkpt.saCkptSectionIterationInitialize(checkpoint, ANY, 0, iteration))
    descriptor = saCkpt.SaCkptSectionDescriptorT()
    lines = []
    while True:
        rc = saCkpt.saCkptSectionIterationNext(iteration, descriptor)
        if rc == saAis.eSaAisErrorT.SA_AIS_ERR_NO_SECTIONS:
            break
        expect("next", rc)
        element = saCkpt.SaCkptIOVectorElementT(descriptor.sectionId, None, 0, 0, 0)
        expect("read", saCkpt.saCkptCheckpointRead(checkpoint, element, 1, index))
        text = string_at(descriptor.sectionId.id, descriptor.sectionId.idLen)
        if text == string_at(generated.id, generated.idLen):
            text = b"(generated)"
        forever = descriptor.expirationTime == NEVER
        content = cast(element.dataBuffer, c_char_p).value
        lines.append(
            "%s %d %s %s"
            % (text.decode(), element.readSize, content.decode() or "-", "always" if forever else "hour")
        )
        expect("free", saCkpt.saCkptIOVectorElementDataFree(checkpoint, element.dataBuffer))
    expect("end", saCkpt.saCkptSectionIterationFinalize(iteration))
    print("\n".join(sorted(lines)))

    expect("free", saCkpt.saCkptSectionIdFree(checkpoint, generated.id.contents))
    expect("delete", saCkpt.saCkptSectionDelete(checkpoint, id_of(b"first")))
    expect(
        "delete",
        saCkpt.saCkptSectionDelete(checkpoint, id_of(b"first")),
        saAis.eSaAisErrorT.SA_AIS_ERR_NOT_EXIST,
    )
    expect("unlink", saCkpt.saCkptCheckpointUnlink(handle, name))
    expect("finalize", saCkpt.saCkptFinalize(handle))


if __name__ == "__main__":
    main()
