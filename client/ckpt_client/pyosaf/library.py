"""The life of a library instance: initialize, wait for callbacks, dispatch them, track, finalize.

Source: SAF 3.4; R142 to R144 for tracking.
"""

from typing import Any

from ckpt_client.errors import SaAisError
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.pyosaf import tracking
from ckpt_client.pyosaf.arguments import number, reference, required, returns_code
from ckpt_client.pyosaf.handles import HANDLES, Callbacks, Library, Open
from ckpt_client.pyosaf.structures import SaCkptCallbacksT, SaCkptCallbacksT_2, SaCkptHandleT
from ckpt_client.pyosaf.types import SaDispatchFlagsT, SaSelectionObjectT, SaVersionT
from ckpt_client.saf import Checkpoint, CheckpointCallbacks, CheckpointService
from ckpt_client.saf.version import negotiate
from ckpt_protocol import codes


def library_of(ckptHandle: Any) -> Library:
    """Return the library instance of a handle. Raises: BAD_HANDLE."""
    return HANDLES.find(Library, number(SaCkptHandleT, ckptHandle))


@returns_code
def saCkptInitialize(ckptHandle: Any, callbacks: Any, version: Any) -> None:
    """Make a library instance; put its handle into `ckptHandle`. Source: SAF 3.4.1; R11 to R15."""
    _initialize(SaCkptCallbacksT, ckptHandle, callbacks, version)


@returns_code
def saCkptInitialize_2(ckptHandle: Any, callbacks: Any, version: Any) -> None:
    """Make a library instance that may have a callback for tracking. Source: OpenSAF's B.02.03; R142."""
    _initialize(SaCkptCallbacksT_2, ckptHandle, callbacks, version)


@returns_code
def saCkptSelectionObjectGet(ckptHandle: Any, selectionObject: Any) -> None:
    """Get a descriptor that is readable while a callback waits. Source: SAF 3.4.2; R16."""
    place = required(SaSelectionObjectT, selectionObject, "the address for the selection object")
    place.value = library_of(ckptHandle).service.selection_object()


@returns_code
def saCkptDispatch(ckptHandle: Any, dispatchFlags: Any) -> None:
    """Call the callbacks that wait. Source: SAF 3.4.3; R17 to R20."""
    flags = number(SaDispatchFlagsT, dispatchFlags)
    tracking.dispatch(library_of(ckptHandle), flags)


@returns_code
def saCkptFinalize(ckptHandle: Any) -> None:
    """End the instance and close what it has open. Source: SAF 3.4.4; R21, R22."""
    library = library_of(ckptHandle)
    HANDLES.drop_library(library)
    library.service.finalize()


@returns_code
def saCkptTrack(ckptHandle: Any) -> None:
    """Report the changes of what the instance reads from now on. Source: R142 to R144."""
    tracking.start(library_of(ckptHandle))


@returns_code
def saCkptTrackStop(ckptHandle: Any) -> None:
    """Report no more changes. Source: R143."""
    tracking.stop(library_of(ckptHandle))


def _initialize(kind: type[Any], ckptHandle: Any, callbacks: Any, version: Any) -> None:
    place = required(SaCkptHandleT, ckptHandle, "the address for the handle")
    asked = required(SaVersionT, version, "the version")
    theirs = callbacks_of(reference(kind, callbacks))
    wanted = (asked.releaseCode.decode("latin-1"), asked.majorVersion, asked.minorVersion)
    try:
        agreed = negotiate(wanted, tracking.HIGHEST)
    except SaAisError as error:
        if error.code == codes.VERSION:
            _fill_version(asked)
        raise
    forwarding = CheckpointCallbacks()
    library = Library(CheckpointService.initialize(agreed, forwarding), agreed, theirs)
    _forward(forwarding, library)
    place.value = HANDLES.add_library(library)
    _fill_version(asked)


def _fill_version(asked: Any) -> None:
    asked.releaseCode, asked.majorVersion, asked.minorVersion = tracking.HIGHEST


def callbacks_of(structure: Any) -> Callbacks:
    """Copy the callbacks, so that nothing changes if the program alters its structure later."""
    if structure is None:
        return Callbacks()

    def function(field: str) -> Any:
        pointer = getattr(structure, field, None)
        return type(pointer).from_buffer_copy(pointer) if pointer else None

    return Callbacks(
        function("saCkptCheckpointOpenCallback"),
        function("saCkptCheckpointSynchronizeCallback"),
        function("saCkptCheckpointTrackCallback"),
        (structure, *(structure._objects or {}).values()),
    )


def _forward(forwarding: CheckpointCallbacks, library: Library) -> None:
    """Have the service call the program's functions, with handles and codes as numbers."""
    opened, synchronized = library.callbacks.opened, library.callbacks.synchronized
    if opened is not None:

        def forward_opened(invocation: int, checkpoint: Checkpoint | None, error: int) -> None:
            handle, code = 0, int(error)
            if checkpoint is not None:
                try:
                    limit = TimeLimit(None, library.service.inner.timeout_ns)
                    handle = take_opened(library, checkpoint, limit)
                except SaAisError as failed:
                    code = int(failed.code)
            opened(invocation, handle, code)

        forwarding.checkpoint_open = forward_opened
    if synchronized is not None:

        def forward_synchronized(invocation: int, error: int) -> None:
            synchronized(invocation, int(error))

        forwarding.checkpoint_synchronize = forward_synchronized


def take_opened(library: Library, checkpoint: Checkpoint, limit: TimeLimit) -> int:
    """Return a number for an opened checkpoint. If its instance tracks, track it; if that fails, close it."""
    opened = Open(library, checkpoint)
    handle = HANDLES.add_open(opened)
    try:
        tracking.follow(opened, limit)
    except SaAisError:
        HANDLES.drop_open(opened)
        checkpoint.leave()  # The call's time may be over.
        raise
    return handle
