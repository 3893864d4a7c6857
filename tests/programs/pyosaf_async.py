"""Opens without waiting, waits at the selection object, synchronizes without waiting.

pyosaf_async.py
"""

import sys
from select import select

from pyosaf import saAis, saCkpt
from pyosaf.saAis import SaNameT, SaSelectionObjectT, SaVersionT, eSaAisErrorT, eSaDispatchFlagsT

WAIT_SECONDS = 10


class Opener:
    """What a component does while it starts, all by callbacks."""

    def __init__(self):
        self.handle = saCkpt.SaCkptHandleT()
        self.selection_object = SaSelectionObjectT()
        self.checkpoint = None
        self.synchronized = None
        self.failed = None
        self.callbacks = saCkpt.SaCkptCallbacksT()
        self.callbacks.saCkptCheckpointOpenCallback = saCkpt.SaCkptCheckpointOpenCallbackT(self.opened)
        self.callbacks.saCkptCheckpointSynchronizeCallback = saCkpt.SaCkptCheckpointSynchronizeCallbackT(
            self.synchronize_ended
        )

    def opened(self, invocation, checkpoint, error):
        """The callback of saCkptCheckpointOpenAsync."""
        print("open %d ended: %s" % (invocation, eSaAisErrorT.whatis(error)))
        if error == eSaAisErrorT.SA_AIS_OK:
            self.checkpoint = saCkpt.SaCkptCheckpointHandleT(checkpoint)
        else:
            self.failed = invocation

    def synchronize_ended(self, invocation, error):
        """The callback of saCkptCheckpointSynchronizeAsync."""
        print("synchronize %d ended: %s" % (invocation, eSaAisErrorT.whatis(error)))
        self.synchronized = invocation

    def check(self, function, *arguments):
        """Call a function that must succeed."""
        rc = function(*arguments)
        if rc != eSaAisErrorT.SA_AIS_OK:
            sys.exit("%s: %s" % (function.__name__, eSaAisErrorT.whatis(rc)))

    def wait(self, ended):
        """Dispatch until something has ended."""
        while not ended():
            ready, _, _ = select([self.selection_object.value], [], [], WAIT_SECONDS)
            if not ready:
                sys.exit("nothing came")
            self.check(saCkpt.saCkptDispatch, self.handle, eSaDispatchFlagsT.SA_DISPATCH_ALL)

    def run(self):
        """Do everything, in order."""
        version = SaVersionT(b"B", 2, 2)
        self.check(saCkpt.saCkptInitialize, self.handle, self.callbacks, version)
        self.check(saCkpt.saCkptSelectionObjectGet, self.handle, self.selection_object)
        missing = SaNameT(b"safCkpt=missing")
        self.check(saCkpt.saCkptCheckpointOpenAsync, self.handle, 1, missing, None, 1)
        self.wait(lambda: self.failed is not None)

        attributes = saCkpt.SaCkptCheckpointCreationAttributesT(
            saCkpt.saCkpt.SA_CKPT_WR_ACTIVE_REPLICA, 100, saAis.saAis.SA_TIME_ONE_SECOND, 1, 100, 8
        )
        name = SaNameT(b"safCkpt=async")
        self.check(saCkpt.saCkptCheckpointOpenAsync, self.handle, 2, name, attributes, 7)
        self.wait(lambda: self.checkpoint is not None)

        default = saCkpt.SA_CKPT_DEFAULT_SECTION_ID()
        self.check(saCkpt.saCkptSectionOverwrite, self.checkpoint, default, b"state", 5)
        self.check(saCkpt.saCkptCheckpointSynchronizeAsync, self.checkpoint, 3)
        self.wait(lambda: self.synchronized is not None)
        self.check(saCkpt.saCkptCheckpointClose, self.checkpoint)
        self.check(saCkpt.saCkptFinalize, self.handle)


if __name__ == "__main__":
    Opener().run()
