"""A program that never waits in a call: it opens and synchronizes asynchronously, and dispatches callbacks.

python -m ckpt_client.asp examples/callbacks.py 20
"""

import select
import sys

from safplusCApi import *
import aspMisc

OPEN, SYNCHRONIZE = 1, 2  # invocations: which call a callback is about


class Worker:
    def __init__(self, jobs):
        self.jobs = jobs
        self.done = False
        self.checkpoint = 0
        callbacks = SaCkptCallbacksT()
        callbacks.saCkptCheckpointOpenCallback = self.opened
        callbacks.saCkptCheckpointSynchronizeCallback = self.synchronized
        version = SaVersionT()
        version.releaseCode, version.majorVersion, version.minorVersion = "B", 1, 1
        self.service = saCkptInitialize(callbacks, version)

    def start(self):
        attributes = SaCkptCheckpointCreationAttributesT()
        attributes.creationFlags = SA_CKPT_WR_ACTIVE_REPLICA
        attributes.maxSections = 2
        attributes.maxSectionSize = 64
        attributes.maxSectionIdSize = 8
        attributes.checkpointSize = 128
        attributes.retentionDuration = SA_TIME_ONE_HOUR
        flags = SA_CKPT_CHECKPOINT_CREATE | SA_CKPT_CHECKPOINT_READ | SA_CKPT_CHECKPOINT_WRITE
        saCkptCheckpointOpenAsync(self.service, OPEN, "callbacks", attributes, flags)

    def opened(self, invocation, checkpoint, error):
        if error != SA_AIS_OK:
            raise SystemError(error)
        print("invocation %d: the checkpoint is open" % invocation)
        self.checkpoint = checkpoint
        try:
            saCkptSectionCreate(checkpoint, "job", "none")
        except SystemError as e:
            if e[0] != SA_AIS_ERR_EXIST:
                raise
            print("the last program came to %s" % saCkptCheckpointRead(checkpoint, ["job"]).decode())
        for job in range(1, self.jobs + 1):
            saCkptSectionOverwrite(checkpoint, "job", "job %d" % job)
        saCkptCheckpointSynchronizeAsync(checkpoint, SYNCHRONIZE)

    def synchronized(self, invocation, error):
        print("invocation %d: %s" % (invocation, aspMisc.getErrorString(error)))
        self.done = True

    def run(self):
        descriptor = saCkptSelectionObjectGet(self.service)
        while not self.done:
            ready = select.select([descriptor], [], [], 30)[0]
            if not ready:
                print("nothing came")
                sys.exit(1)
            saCkptDispatch(self.service, SA_DISPATCH_ALL)
        saCkptFinalize(self.service)


if __name__ == "__main__":
    worker = Worker(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
    worker.start()
    worker.run()
    print("done")
