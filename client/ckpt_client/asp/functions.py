"""The functions of ASP's module `asp`: the SA Forum's calls, as ASP's Python programs make them.

Handles are numbers. Keys and values are text (as UTF-8) or bytes; values come back as bytes. A sequence of
keys, or of (key, value) pairs, takes the place of C's io vector; all data is written and read at offset 0.
The functions call `ckpt_client.saf`; they also accept the handles of an `aspCheckpoint.Table`.

Each raises SaAisError (a SystemError, `args == (code,)`) on any code but SA_AIS_OK. Times are in nanoseconds.

Source: SAI-AIS-CKPT, the function of the same name; R1 to R141.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, overload

from ckpt_client.asp.handles import Handles
from ckpt_client.asp.protocols import Checkpoint, Iteration, Service
from ckpt_client.asp.structures import (
    SaCkptCallbacksT,
    SaCkptCheckpointCreationAttributesT,
    SaCkptCheckpointDescriptorT,
    SaCkptSectionDescriptorT,
    SaCkptSectionIdT,
    SaVersionT,
    fields_of,
    fill_descriptor,
    set_version,
    version_of,
)
from ckpt_client.errors import SaAisErrVersion, error_of
from ckpt_client.requests.table_requests import Key, Value
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_SECTIONS_ANY, SA_TIME_MAX

Descriptor = TypeVar("Descriptor", bound=SaCkptSectionDescriptorT)

services: Final = Handles[Service]("service")
checkpoints: Final = Handles[Checkpoint]("checkpoint")
iterations: Final = Handles[Iteration]("iteration")


# -- the library


def saCkptInitialize(callbacks: SaCkptCallbacksT | None, version: SaVersionT) -> int:
    """Begin to use the service; return the service handle.

    `callbacks` is a SaCkptCallbacksT or None. `version` is a SaVersionT; it is overwritten with the supported
    version, even if the error is SA_AIS_ERR_VERSION (R11, R12).
    """
    # Imported here because it imports asyncio, which programs that only use tables do not need.
    from ckpt_client.saf import CheckpointService

    called = _Callbacks(callbacks)
    try:
        service = CheckpointService.initialize(version_of(version), called.given())
    except SaAisErrVersion as error:
        if error.version is not None:
            set_version(version, error.version)
        raise
    set_version(version, service.version)
    called.service = services.issue(service)
    return called.service


def saCkptSelectionObjectGet(ckptHandle: int) -> int:
    """Return a file descriptor that is readable while a callback waits for `saCkptDispatch`."""
    return services.find(ckptHandle).selection_object()


def saCkptDispatch(ckptHandle: int, dispatchFlags: int) -> None:
    """Run callbacks: one (SA_DISPATCH_ONE), all that wait (_ALL), or until saCkptFinalize (_BLOCKING)."""
    services.find(ckptHandle).dispatch(dispatchFlags)


def saCkptFinalize(ckptHandle: int) -> None:
    """End the use of the service; everything opened through it is closed."""
    service = services.find(ckptHandle)
    try:
        service.finalize()
    finally:
        services.forget(ckptHandle)
        for checkpoint in checkpoints.forget_owned(ckptHandle):
            iterations.forget_owned(checkpoint)


# -- checkpoints


def _forever(timeout: int) -> int:
    """Return a time-out in ns. ASP's programs write -1 for no limit; other negative values stay errors."""
    return SA_TIME_MAX if timeout == -1 else timeout


def saCkptCheckpointOpen(
    ckptHandle: int,
    checkpointName: Key,
    checkpointCreationAttributes: SaCkptCheckpointCreationAttributesT | None,
    checkpointOpenFlags: int,
    timeout: int,
) -> int:
    """Open a checkpoint and return its handle. The attributes are None unless the flags contain CREATE."""
    service = services.find(ckptHandle)
    fields = fields_of(checkpointCreationAttributes)
    limit_ns = _forever(timeout)
    opened = service.checkpoint_open(checkpointName, checkpointOpenFlags, fields, timeout_ns=limit_ns)
    return checkpoints.issue(opened, ckptHandle)


def saCkptCheckpointOpenAsync(
    ckptHandle: int,
    invocation: int,
    checkpointName: Key,
    checkpointCreationAttributes: SaCkptCheckpointCreationAttributesT | None,
    checkpointOpenFlags: int,
) -> None:
    """Begin to open a checkpoint; saCkptCheckpointOpenCallback receives its handle."""
    service = services.find(ckptHandle)
    fields = fields_of(checkpointCreationAttributes)
    service.checkpoint_open_async(invocation, checkpointName, checkpointOpenFlags, fields)


def saCkptCheckpointClose(checkpointHandle: int) -> None:
    """Close a checkpoint."""
    checkpoint = checkpoints.find(checkpointHandle)
    try:
        checkpoint.close()
    finally:
        checkpoints.forget(checkpointHandle)
        iterations.forget_owned(checkpointHandle)


def saCkptCheckpointUnlink(ckptHandle: int, checkpointName: Key) -> None:
    """Free a name; the data goes when the last open handle is closed."""
    services.find(ckptHandle).checkpoint_unlink(checkpointName)


def saCkptCheckpointRetentionDurationSet(checkpointHandle: int, retentionDuration: int) -> None:
    """Set how long the checkpoint is kept while no program has it open."""
    checkpoints.find(checkpointHandle).retention_duration_set(retentionDuration)


def saCkptActiveReplicaSet(checkpointHandle: int) -> None:
    """Make the local replica the active one."""
    checkpoints.find(checkpointHandle).active_replica_set()


def saCkptCheckpointStatusGet(checkpointHandle: int, checkpointStatus: SaCkptCheckpointDescriptorT) -> None:
    """Fill a SaCkptCheckpointDescriptorT."""
    status = checkpoints.find(checkpointHandle).status_get()
    attributes = tuple(status.creation_attributes)
    fill_descriptor(checkpointStatus, attributes, status.number_of_sections, status.memory_used)


def saCkptCheckpointSynchronize(checkpointHandle: int, timeout: int) -> None:
    """Wait until all replicas have everything that was written before this call."""
    checkpoints.find(checkpointHandle).synchronize(_forever(timeout))


def saCkptCheckpointSynchronizeAsync(checkpointHandle: int, invocation: int) -> None:
    """Begin to synchronize; saCkptCheckpointSynchronizeCallback receives the result."""
    checkpoints.find(checkpointHandle).synchronize_async(invocation)


# -- sections


def saCkptSectionCreate(checkpointHandle: int, sectionId: Key, initialData: Value) -> bytes:
    """Create a section that never expires; return its id, which the service generates if you give ""."""
    return checkpoints.find(checkpointHandle).section_create(sectionId, SA_TIME_MAX, initialData)


def saCkptSectionDelete(checkpointHandle: int, sectionId: Key) -> None:
    """Delete a section."""
    checkpoints.find(checkpointHandle).section_delete(sectionId)


def saCkptSectionExpirationTimeSet(checkpointHandle: int, sectionId: Key, expirationTime: int) -> None:
    """Set when the section expires: ns since 1970, SA_TIME_END for never."""
    checkpoints.find(checkpointHandle).section_expiration_time_set(sectionId, expirationTime)


def saCkptSectionIdFree(checkpointHandle: int, sectionId: Key) -> None:
    """Check the handle and do nothing else: Python owns the ids. (R98)"""
    checkpoints.find(checkpointHandle)


def saCkptSectionIterationInitialize(
    checkpointHandle: int, sectionsChosen: int = SA_CKPT_SECTIONS_ANY, expirationTime: int | None = None
) -> int:
    """Begin to iterate over the sections; return the iteration's handle."""
    checkpoint = checkpoints.find(checkpointHandle)
    iteration = checkpoint.section_iteration_initialize(sectionsChosen, expirationTime)
    return iterations.issue(iteration, checkpointHandle)


@overload
def saCkptSectionIterationNext(
    sectionIterationHandle: int, sectionDescriptor: None = None
) -> SaCkptSectionDescriptorT: ...
@overload
def saCkptSectionIterationNext(sectionIterationHandle: int, sectionDescriptor: Descriptor) -> Descriptor: ...
def saCkptSectionIterationNext(sectionIterationHandle: int, sectionDescriptor: Any = None) -> Any:
    """Return the next section's SaCkptSectionDescriptorT: yours, filled, or a new one if you give none.

    Raises: SaAisError NO_SECTIONS after the last section.
    """
    section = iterations.find(sectionIterationHandle).next()
    filled: Any = SaCkptSectionDescriptorT() if sectionDescriptor is None else sectionDescriptor
    filled.sectionId = SaCkptSectionIdT(len(section.section_id), section.section_id)
    filled.expirationTime = section.expiration_time
    filled.sectionSize = section.section_size
    filled.sectionState = section.section_state
    filled.lastUpdate = section.last_update
    return filled


def saCkptSectionIterationFinalize(sectionIterationHandle: int) -> None:
    """End an iteration."""
    iteration = iterations.find(sectionIterationHandle)
    try:
        iteration.finalize()
    finally:
        iterations.forget(sectionIterationHandle)


# -- data


def saCkptSectionOverwrite(checkpointHandle: int, sectionId: Key, dataBuffer: Value) -> None:
    """Replace a section's content."""
    checkpoints.find(checkpointHandle).overwrite(sectionId, dataBuffer)


def saCkptCheckpointWrite(
    checkpointHandle: int, ioVector: Mapping[Any, Value] | Iterable[tuple[Key, Value]]
) -> None:
    """Write [(key, value), ...], or a mapping, from each section's start: all or none; shorten no section."""
    checkpoint = checkpoints.find(checkpointHandle)
    pairs = ioVector.items() if isinstance(ioVector, Mapping) else ioVector
    try:
        elements = [(key, value, 0) for key, value in pairs]
    except (TypeError, ValueError):
        raise error_of(codes.INVALID_PARAM, "ioVector must be a list of (key, value) pairs") from None
    checkpoint.write(elements)


@overload
def saCkptCheckpointRead(checkpointHandle: int, ioVector: Key) -> bytes: ...
@overload
def saCkptCheckpointRead(checkpointHandle: int, ioVector: Iterable[Key]) -> bytes | list[bytes]: ...
def saCkptCheckpointRead(checkpointHandle: int, ioVector: Any) -> bytes | list[bytes]:
    """Return the values of [key, ...], all of the same moment: one value itself, several as a list."""
    checkpoint = checkpoints.find(checkpointHandle)
    if isinstance(ioVector, str | bytes | bytearray | memoryview):
        ioVector = [ioVector]
    if not isinstance(ioVector, Iterable):
        raise error_of(codes.INVALID_PARAM, f"ioVector must be a list of keys, not {ioVector!r}")
    values = checkpoint.read([(key, None, 0) for key in ioVector])
    return values if len(values) != 1 else values[0]


def saCkptIOVectorElementDataFree(checkpointHandle: int, data: object) -> None:
    """Check the handle and do nothing else: Python owns the buffers. (R132)"""
    checkpoints.find(checkpointHandle)


# -- functions that refuse what ASP's wrapper refused


def strict_overwrite(checkpointHandle: int, sectionId: Key, dataBuffer: Value) -> None:
    """Replace a section's content; refuse empty content."""
    checkpoint = checkpoints.find(checkpointHandle)
    if not isinstance(dataBuffer, str | bytes | bytearray | memoryview) or not len(dataBuffer):
        raise error_of(codes.INVALID_PARAM, "dataBuffer has no data")
    checkpoint.overwrite(sectionId, dataBuffer)


def strict_write(checkpointHandle: int, ioVector: list[tuple[Key, Value]]) -> None:
    """Write a list of (key, value) tuples; refuse anything but a list."""
    checkpoints.find(checkpointHandle)
    _check_list(ioVector)
    saCkptCheckpointWrite(checkpointHandle, ioVector)


def strict_read(checkpointHandle: int, ioVector: list[Key]) -> bytes | list[bytes]:
    """Read a list of keys; refuse anything but a list."""
    checkpoints.find(checkpointHandle)
    _check_list(ioVector)
    return saCkptCheckpointRead(checkpointHandle, ioVector)


def _check_list(given: object) -> None:
    if not isinstance(given, list):
        raise error_of(codes.INVALID_PARAM, f"expected a list, not {type(given).__name__}")


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    name: function for name, function in globals().items() if name.startswith("saCkpt")
}
"""Every function by its name."""

STRICT_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    **FUNCTIONS,
    "saCkptSectionOverwrite": strict_overwrite,
    "saCkptCheckpointWrite": strict_write,
    "saCkptCheckpointRead": strict_read,
}


# -- callbacks


class _Callbacks:
    """Calls the functions of a SaCkptCallbacksT with ASP's handles."""

    def __init__(self, callbacks: Any) -> None:
        self.service = 0
        """The service's handle."""

        self._opened: Any = getattr(callbacks, "saCkptCheckpointOpenCallback", None)
        self._synchronized: Any = getattr(callbacks, "saCkptCheckpointSynchronizeCallback", None)

    def given(self) -> Any:
        """Return the callbacks as `ckpt_client.saf` takes them; one that the program left out is None."""
        from ckpt_client.saf import CheckpointCallbacks

        return CheckpointCallbacks(
            None if self._opened is None else self._open_ended,
            None if self._synchronized is None else self._synchronize_ended,
        )

    def _open_ended(self, invocation: int, checkpoint: Checkpoint | None, error: int) -> None:
        handle = 0 if checkpoint is None else checkpoints.issue(checkpoint, self.service)
        self._opened(invocation, handle, int(error))

    def _synchronize_ended(self, invocation: int, error: int) -> None:
        self._synchronized(invocation, int(error))
