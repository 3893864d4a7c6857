"""An active program and its standby, with a collocated asynchronous checkpoint between them.

On each of two nodes:

    python -m ckpt_client.asp examples/standby.py active 1000
    python -m ckpt_client.asp examples/standby.py standby 1000

The active program works and writes how far it is. With SA_CKPT_WR_ACTIVE_REPLICA a write returns as soon as the
program's own node has it. When the active program has ended, start the standby: it makes the replica of its own
node the active one and continues after the last job that it finds there. Jobs whose results had not reached that
replica are done again, so it must be harmless to do a job twice.
"""

import sys

import aspCheckpoint
from asp import *

FLAGS = SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED


def work(table, last, jobs):
    for job in range(last + 1, last + jobs + 1):
        table.Write([("last", "%010d" % job), ("job %d" % (job % 8), "result of job %d" % job)])
        print("job %d done" % job)
    table.Synchronize()  # before a planned end: the standby has everything


def last_job(table):
    try:
        return int(table.Read(["last"]))
    except aspCheckpoint.CheckpointError as e:
        if e.aspErrorCode[0] != SA_AIS_ERR_NOT_EXIST:
            raise
        return 0


def main(role, jobs):
    table = aspCheckpoint.Table("jobs", 16, 256, 16, FLAGS, 60 * 60 * 1000)
    table.SetAutoActivate(False)  # which replica is active is our own decision
    table.Activate()
    last = last_job(table)
    if role == "standby":
        print("the standby takes over after job %d" % last)
    work(table, last, jobs)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "active", int(sys.argv[2]) if len(sys.argv) > 2 else 10)
    except aspCheckpoint.CheckpointError as e:
        print("%s (code %d)" % (e.text, e[0]))
        sys.exit(1)
