"""Leases that expire on their own: a table, and bare calls for what a table does not offer.

    python -m ckpt_client.asp examples/leases.py grant printer Ada 60
    python -m ckpt_client.asp examples/leases.py list
    python -m ckpt_client.asp examples/leases.py drop

The functions of `asp` accept the handles of a table.
"""

import sys
import time

import aspCheckpoint
from asp import *


def grant(table, what, who, seconds):
    try:
        holder = table.Read([what])
        print("%s is held by %s" % (what, holder.decode()))
        return 1
    except aspCheckpoint.CheckpointError as e:
        if e.aspErrorCode[0] != SA_AIS_ERR_NOT_EXIST:
            raise
    table.Write(what, who)
    until = int((time.time() + seconds) * SA_TIME_ONE_SECOND)
    saCkptSectionExpirationTimeSet(table.ckptHdl, what, until)
    print("%s is %s's for %d seconds" % (what, who, seconds))
    return 0


def show(table):
    iteration = saCkptSectionIterationInitialize(table.ckptHdl, SA_CKPT_SECTIONS_ANY, 0)
    while True:
        try:
            section = saCkptSectionIterationNext(iteration)
        except SystemError as e:
            if e[0] == SA_AIS_ERR_NO_SECTIONS:
                break
            raise
        what = section.sectionId.id
        left = section.expirationTime - time.time() * SA_TIME_ONE_SECOND
        holder = table.Read([what])
        print("%s: %s, %d minutes left" % (what.decode(), holder.decode(), left // SA_TIME_ONE_MINUTE))
    saCkptSectionIterationFinalize(iteration)
    return 0


def main(args):
    table = aspCheckpoint.Table("leases", 100, 64, 32)
    if args[:1] == ["grant"]:
        return grant(table, args[1], args[2], int(args[3]))
    if args[:1] == ["drop"]:
        saCkptCheckpointUnlink(table.svcHdl, table.ckptName)
        saCkptFinalize(table.svcHdl)
        print("all leases are dropped")
        return 0
    return show(table)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except aspCheckpoint.CheckpointError as e:
        print(e)
        sys.exit(1)
