"""A journal kept with the bare calls of the SA Forum, as ASP's module `asp` offers them.

    python -m ckpt_client.asp examples/journal.py add "the first entry"
    python -m ckpt_client.asp examples/journal.py show
    python -m ckpt_client.asp examples/journal.py forget

Every call raises a SystemError with the code, unless the code is SA_AIS_OK.
"""

import sys

import asp
import aspMisc

NAME = "journal"
ENTRIES = 100


def initialize():
    version = asp.SaVersionT()
    version.releaseCode = ord("B")
    version.majorVersion = 1
    version.minorVersion = 1
    return asp.saCkptInitialize(None, version)


def open_journal(service):
    attributes = asp.SaCkptCheckpointCreationAttributesT()
    attributes.creationFlags = asp.SA_CKPT_WR_ALL_REPLICAS
    attributes.maxSections = ENTRIES + 1
    attributes.maxSectionSize = 256
    attributes.maxSectionIdSize = 16
    attributes.checkpointSize = attributes.maxSections * attributes.maxSectionSize
    attributes.retentionDuration = asp.SA_TIME_MAX
    flags = asp.SA_CKPT_CHECKPOINT_CREATE | asp.SA_CKPT_CHECKPOINT_READ | asp.SA_CKPT_CHECKPOINT_WRITE
    return asp.saCkptCheckpointOpen(service, NAME, attributes, flags, asp.SA_TIME_ONE_SECOND * 10)


def count(journal):
    try:
        return int(asp.saCkptCheckpointRead(journal, ["count"]))
    except SystemError as e:
        if e[0] != asp.SA_AIS_ERR_NOT_EXIST:
            raise
        asp.saCkptSectionCreate(journal, "count", "0")
        return 0


def add(journal, text):
    number = count(journal) + 1
    key = "entry %d" % number
    try:
        asp.saCkptSectionCreate(journal, key, text)
    except SystemError as e:
        if e[0] != asp.SA_AIS_ERR_EXIST:  # left by an add that was interrupted
            raise
        asp.saCkptSectionOverwrite(journal, key, text)
    asp.saCkptSectionOverwrite(journal, "count", "%d" % number)
    print("entry %d is kept" % number)


def show(journal):
    status = asp.SaCkptCheckpointDescriptorT()
    asp.saCkptCheckpointStatusGet(journal, status)
    print("%d sections, %d bytes" % (status.numberOfSections, status.memoryUsed))
    keys = ["entry %d" % number for number in range(1, count(journal) + 1)]
    if len(keys) == 1:
        print(asp.saCkptCheckpointRead(journal, keys).decode())  # for one key the value itself
    elif keys:
        for text in asp.saCkptCheckpointRead(journal, keys):
            print(text.decode())


def main(args):
    service = initialize()
    journal = open_journal(service)
    if args[:1] == ["add"]:
        add(journal, args[1])
    elif args[:1] == ["forget"]:
        asp.saCkptCheckpointUnlink(service, NAME)
        print("the journal is forgotten")
    else:
        show(journal)
    asp.saCkptCheckpointClose(journal)
    asp.saCkptFinalize(service)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SystemError as e:
        print("the service answered %s" % aspMisc.getErrorString(e[0]))
        sys.exit(1)
