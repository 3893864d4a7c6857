"""A checkpoint that a program has open, and each of its calls, once for all who make them. Pure.

A call is a generator of requests (see `steps`): it checks the handle, the access mode and the
arguments, asks the service, and returns what the program gets. `Checkpoint`, `AsyncCheckpoint` and ASP's
tables do nothing but carry it out.

The state is the handle's open flags, which alone decide what it may do (R8), and the attributes in force.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from ckpt_client.checkpoint.leadership_state import LeadershipState
from ckpt_client.errors import SaAisError
from ckpt_client.requests.table_requests import Attributes, status_of
from ckpt_client.saf import saf_requests
from ckpt_client.saf.answers import created_id, descriptor_of, page_of, values_of
from ckpt_client.saf.saf_requests import BeyondLimit, SafRequest
from ckpt_client.saf.types import CheckpointDescriptor, SectionDescriptor
from ckpt_client.steps import Result, Steps
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ, SA_CKPT_CHECKPOINT_WRITE
from ckpt_protocol.messages import Kind

READ: Final = SA_CKPT_CHECKPOINT_READ
WRITE: Final = SA_CKPT_CHECKPOINT_WRITE
ITERATE: Final = "saCkptSectionIterationInitialize"
SafCall = Steps[SafRequest, Result]
_NEEDS: Final = {0: "", READ: "reading", WRITE: "writing"}


class CheckpointHandle:
    """One open of one checkpoint.

    Every method raises SaAisError with the name of its SAF call: BAD_HANDLE once closed, ACCESS if the open
    flags forbid the call, else what is wrong with the arguments.
    """

    def __init__(
        self,
        name: bytes,
        open_flags: int,
        handle: int,
        attributes: Attributes,
        new: bool,
        creation_id: int = 0,
    ) -> None:
        self.name = name
        self.open_flags = open_flags
        self.handle = handle
        self.new = new
        """True if the rules of B.02 hold."""

        self.closed = ""
        """Why the handle is dead; "" while it lives."""

        self.attributes = attributes
        self.creation_id = creation_id
        """Which checkpoint of this name it is."""

        self.leadership: LeadershipState | None = None
        """The leadership that the program has not left yet, lost or not."""

        self._size_max = attributes.section_bytes_max

    def check(self, call: str, access: int = 0) -> None:
        """Check that the handle lives and was opened for this access."""
        if self.closed:
            raise saf_requests.named_error(call, codes.BAD_HANDLE, self.closed)
        if access and not self.open_flags & access:
            raise saf_requests.named_error(
                call, codes.ACCESS, f"the handle was not opened for {_NEEDS[access]}"
            )

    def as_leader(self, ask: SafRequest) -> SafCall[Any]:
        """Make an update with the token of the leadership. Raises: LeadershipEnded once it is lost."""
        leadership = self.leadership
        assert leadership is not None
        try:
            while True:
                sent_ns = leadership.check()
                try:
                    answer = yield ask._replace(body=leadership.sign(ask.body))
                except SaAisError as error:
                    leadership.take_refusal(error)
                    continue
                leadership.renew(sent_ns)
                return answer
        except SaAisError as error:
            error.call = ask.call
            raise

    def close(self) -> SafRequest:
        """CheckpointClose. The handle is dead from now on, whatever the service answers."""
        self.check("saCkptCheckpointClose")
        self.closed = "the checkpoint is closed"
        return SafRequest("saCkptCheckpointClose", Kind.CLOSE)

    def retention_duration_set(self, retention_duration: Any) -> SafCall[None]:
        """CheckpointRetentionDurationSet, in nanoseconds (R74 to R76)."""
        call = "saCkptCheckpointRetentionDurationSet"
        self.check(call, WRITE if self.new else 0)
        duration = saf_requests.with_call_name(call)(saf_requests.as_number)(
            retention_duration, "a retention duration"
        )
        yield SafRequest(call, Kind.RETENTION_SET, pack_body([duration]))

    def active_replica_set(self) -> SafCall[None]:
        """ActiveReplicaSet (R78 to R82)."""
        self.check("saCkptActiveReplicaSet", WRITE)
        yield SafRequest("saCkptActiveReplicaSet", Kind.ACTIVE_SET, pack_body([False]))

    def status_get(self) -> SafCall[CheckpointDescriptor]:
        """CheckpointStatusGet (R83 to R87)."""
        call = "saCkptCheckpointStatusGet"
        self.check(call, READ if self.new else 0)
        return descriptor_of((yield SafRequest(call, Kind.STATUS)))

    def _within_limit(self, make: Callable[[int], SafRequest]) -> SafCall[SafRequest]:
        """Return the request that is made of `maxSectionSize`. If it is too large, learn that anew, once.

        Another program may have resized the checkpoint.
        """
        try:
            return make(self._size_max)
        except BeyondLimit as error:
            refusal = error
        try:
            status = status_of((yield SafRequest(refusal.call, Kind.STATUS)))
        except SaAisError:
            raise refusal from None
        self._size_max = status.attributes.section_bytes_max
        return make(self._size_max)

    def section_create(self, section_id: Any, expiration_time: Any, initial_data: Any) -> SafCall[bytes]:
        """SectionCreate (R88 to R102). It returns the section's id."""
        self.check("saCkptSectionCreate", WRITE)
        ask = yield from self._within_limit(
            lambda size_max: saf_requests.section_create(section_id, expiration_time, initial_data, size_max)
        )
        return created_id(section_id, (yield ask))

    def section_delete(self, section_id: Any) -> SafCall[None]:
        """SectionDelete (R103)."""
        self.check("saCkptSectionDelete", WRITE)
        yield saf_requests.section_delete(section_id)

    def section_expiration_time_set(self, section_id: Any, expiration_time: Any) -> SafCall[None]:
        """SectionExpirationTimeSet (R104)."""
        self.check("saCkptSectionExpirationTimeSet", WRITE)
        yield saf_requests.section_expiration_time_set(section_id, expiration_time)

    def overwrite(self, section_id: Any, data: Any) -> SafCall[None]:
        """SectionOverwrite (R124, R125)."""
        self.check("saCkptSectionOverwrite", WRITE)
        yield (
            yield from self._within_limit(lambda size_max: saf_requests.overwrite(section_id, data, size_max))
        )

    def write(self, io_vector: Any) -> SafCall[None]:
        """CheckpointWrite (R115 to R123)."""
        self.check("saCkptCheckpointWrite", WRITE)
        yield (yield from self._within_limit(lambda size_max: saf_requests.write(io_vector, size_max)))

    def read(self, io_vector: Any) -> SafCall[list[bytes]]:
        """CheckpointRead (R126 to R133)."""
        self.check("saCkptCheckpointRead", READ)
        ask = yield from self._within_limit(lambda size_max: saf_requests.read(io_vector, size_max))
        return values_of((yield ask))

    def synchronize(self, timeout_ns: Any, default_ns: int) -> SafCall[None]:
        """CheckpointSynchronize (R134 to R140)."""
        yield self.synchronization("saCkptCheckpointSynchronize", timeout_ns, default_ns)

    def synchronization(self, call: str, timeout_ns: Any, default_ns: int) -> SafRequest:
        """Return the request of CheckpointSynchronize, which CheckpointSynchronizeAsync makes too."""
        self.check(call, WRITE)
        limit_ns = saf_requests.with_call_name(call)(saf_requests.as_timeout)(timeout_ns, default_ns)
        return SafRequest(call, Kind.SYNCHRONIZE, timeout_ns=limit_ns)

    # -- iterations

    def check_iteration(self, sections_chosen: Any, expiration_time: Any) -> None:
        """Check the arguments of SectionIterationInitialize (R109, R110)."""
        self.check(ITERATE, READ if self.new else 0)
        saf_requests.with_call_name(ITERATE)(saf_requests.check_choice)(sections_chosen, expiration_time)

    def iterate(self, sections_chosen: Any, expiration_time: Any) -> "SafCall[Iteration]":
        """SectionIterationInitialize. It fails if there is no active replica (R48)."""
        self.check_iteration(sections_chosen, expiration_time)
        yield SafRequest(ITERATE, Kind.STATUS)
        return Iteration(self, sections_chosen, expiration_time)

    def pages(
        self, sections_chosen: int, expiration_time: int | None
    ) -> Iterator[SafCall[list[SectionDescriptor]]]:
        """Yield a call for each page of an iteration. Carry it out before you take the next one."""
        after: bytes | None = None

        def page() -> SafCall[list[SectionDescriptor]]:
            nonlocal after
            self.check(ITERATE)
            sections, after = page_of(
                (yield saf_requests.iterate(ITERATE, sections_chosen, expiration_time, after, None))
            )
            return sections

        yield page()
        while after is not None:
            yield page()


class Iteration:
    """The position of an iteration, which requests one section at a time so that each is current.

    Source: SaCkptSectionIterationHandleT (R111 to R114).
    """

    def __init__(self, opened: CheckpointHandle, sections_chosen: int, expiration_time: int | None) -> None:
        self._opened = opened
        self._choice = (int(sections_chosen), expiration_time)
        self._after: bytes | None = None
        self._ended = False
        self._finalized = False

    def next(self) -> SafCall[SectionDescriptor]:
        """SectionIterationNext. Raises: SaAisError BAD_HANDLE; NO_SECTIONS after the last section."""
        call = "saCkptSectionIterationNext"
        self._check(call)
        if not self._ended:
            page, _ = page_of((yield saf_requests.iterate(call, *self._choice, self._after, 1)))
            if page:
                self._after = page[0].section_id
                return page[0]
            self._ended = True
        raise saf_requests.named_error(
            call, codes.SaAisErrorT.SA_AIS_ERR_NO_SECTIONS, "there is no further section"
        )

    def finalize(self) -> None:
        """SectionIterationFinalize. Raises: SaAisError BAD_HANDLE."""
        self._check("saCkptSectionIterationFinalize")
        self._finalized = True

    def _check(self, call: str) -> None:
        self._opened.check(call)
        if self._finalized:
            raise saf_requests.named_error(call, codes.BAD_HANDLE, "the iteration is finalized")
