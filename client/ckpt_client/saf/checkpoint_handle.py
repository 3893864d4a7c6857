"""The state of a checkpoint that a program has open, and the request of each of its calls. Pure.

The state is the handle's open flags, which alone decide what it may do (R8), and the attributes in force.
"""

from typing import Any, Final, NoReturn

from ckpt_client.saf import saf_requests
from ckpt_client.saf.saf_requests import Ask
from ckpt_client.saf.types import SectionDescriptor
from ckpt_client.session.table_requests import Attributes
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ, SA_CKPT_CHECKPOINT_WRITE
from ckpt_protocol.messages import Kind

READ: Final = SA_CKPT_CHECKPOINT_READ
WRITE: Final = SA_CKPT_CHECKPOINT_WRITE
_NEEDS: Final = {0: "", READ: "reading", WRITE: "writing"}


class Opened:
    """One open of one checkpoint.

    Every method raises SaAisError with the name of its SAF call: BAD_HANDLE once closed, ACCESS if the open
    flags forbid the call, else what is wrong with the arguments.
    """

    def __init__(self, name: bytes, open_flags: int, handle: int, attributes: Attributes, new: bool) -> None:
        self.name = name
        self.open_flags = open_flags
        self.handle = handle
        self.new = new
        """True if the rules of B.02 hold."""

        self.closed = ""
        """Why the handle is dead; "" while it lives."""

        self.attributes = attributes
        self._size_max = attributes.section_bytes_max

    def check(self, call: str, access: int = 0) -> None:
        """Check that the handle lives and was opened for this access."""
        if self.closed:
            raise saf_requests.named_error(call, codes.BAD_HANDLE, self.closed)
        if access and not self.open_flags & access:
            raise saf_requests.named_error(
                call, codes.ACCESS, f"the handle was not opened for {_NEEDS[access]}"
            )

    def close(self) -> Ask:
        """CheckpointClose. The handle is dead from now on, whatever the service answers."""
        self.check("saCkptCheckpointClose")
        self.closed = "the checkpoint is closed"
        return Ask("saCkptCheckpointClose", Kind.CLOSE)

    def retention_duration_set(self, retention_duration: Any) -> Ask:
        """CheckpointRetentionDurationSet, in nanoseconds (R74 to R76)."""
        call = "saCkptCheckpointRetentionDurationSet"
        self.check(call, WRITE if self.new else 0)
        duration = saf_requests.named(call)(saf_requests.as_number)(
            retention_duration, "a retention duration"
        )
        return Ask(call, Kind.RETENTION_SET, pack_body([duration]))

    def active_replica_set(self) -> Ask:
        """ActiveReplicaSet (R78 to R82)."""
        self.check("saCkptActiveReplicaSet", WRITE)
        return Ask("saCkptActiveReplicaSet", Kind.ACTIVE_SET, pack_body([False]))

    def status_get(self, call: str = "saCkptCheckpointStatusGet") -> Ask:
        """CheckpointStatusGet (R83 to R87)."""
        self.check(call, READ if self.new else 0)
        return Ask(call, Kind.STATUS)

    def section_create(self, section_id: Any, expiration_time: Any, initial_data: Any) -> Ask:
        """SectionCreate (R88 to R102)."""
        self.check("saCkptSectionCreate", WRITE)
        return saf_requests.section_create(section_id, expiration_time, initial_data, self._size_max)

    def section_delete(self, section_id: Any) -> Ask:
        """SectionDelete (R103)."""
        self.check("saCkptSectionDelete", WRITE)
        return saf_requests.section_delete(section_id)

    def section_expiration_time_set(self, section_id: Any, expiration_time: Any) -> Ask:
        """SectionExpirationTimeSet (R104)."""
        self.check("saCkptSectionExpirationTimeSet", WRITE)
        return saf_requests.section_expiration_time_set(section_id, expiration_time)

    def begin_iteration(self, call: str, sections_chosen: Any, expiration_time: Any) -> None:
        """Check the arguments of SectionIterationInitialize (R109, R110)."""
        self.check(call, READ if self.new else 0)
        saf_requests.named(call)(saf_requests.check_choice)(sections_chosen, expiration_time)

    def overwrite(self, section_id: Any, data: Any) -> Ask:
        """SectionOverwrite (R124, R125)."""
        self.check("saCkptSectionOverwrite", WRITE)
        return saf_requests.overwrite(section_id, data, self._size_max)

    def write(self, io_vector: Any) -> Ask:
        """CheckpointWrite (R115 to R123)."""
        self.check("saCkptCheckpointWrite", WRITE)
        return saf_requests.write(io_vector, self._size_max)

    def read(self, io_vector: Any) -> Ask:
        """CheckpointRead (R126 to R133)."""
        self.check("saCkptCheckpointRead", READ)
        return saf_requests.read(io_vector, self._size_max)

    def synchronize(self, timeout_ns: Any, default_ns: int) -> Ask:
        """CheckpointSynchronize (R134 to R140)."""
        call = "saCkptCheckpointSynchronize"
        self.check(call, WRITE)
        return Ask(
            call,
            Kind.SYNCHRONIZE,
            timeout_ns=saf_requests.named(call)(saf_requests.as_timeout)(timeout_ns, default_ns),
        )


class Iteration:
    """The position of an iteration, which requests one section at a time so that each is current.

    Source: SaCkptSectionIterationHandleT (R111 to R114).
    """

    def __init__(self, opened: Opened, sections_chosen: int, expiration_time: int | None) -> None:
        self._opened = opened
        self._choice = (int(sections_chosen), expiration_time)
        self._after: bytes | None = None
        self._ended = False
        self._finalized = False

    def next(self) -> Ask:
        """SectionIterationNext. Raises: SaAisError BAD_HANDLE; NO_SECTIONS after the last section."""
        call = "saCkptSectionIterationNext"
        self._check(call)
        if self._ended:
            self._refuse_ended(call)
        return saf_requests.iterate(call, *self._choice, self._after, 1)

    def take(self, page: list[SectionDescriptor]) -> SectionDescriptor:
        """Return the one section in the answer. Raises: SaAisError NO_SECTIONS if there is none."""
        if not page:
            self._ended = True
            self._refuse_ended("saCkptSectionIterationNext")
        self._after = page[0].section_id
        return page[0]

    def finalize(self) -> None:
        """SectionIterationFinalize. Raises: SaAisError BAD_HANDLE."""
        self._check("saCkptSectionIterationFinalize")
        self._finalized = True

    def _check(self, call: str) -> None:
        self._opened.check(call)
        if self._finalized:
            raise saf_requests.named_error(call, codes.BAD_HANDLE, "the iteration is finalized")

    def _refuse_ended(self, call: str) -> NoReturn:
        raise saf_requests.named_error(
            call, codes.SaAisErrorT.SA_AIS_ERR_NO_SECTIONS, "there is no further section"
        )
