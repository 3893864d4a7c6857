"""The request of each SAF call: check the arguments, make one request for the daemon. Pure.

A wrong argument is refused here with its code. The checks follow the order of R7: the handle, the access
mode, then the rest. The blocking and the asyncio service share all of this.
"""

from collections.abc import Callable
from functools import wraps
from operator import index as as_integer
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from ckpt_client.errors import SaAisErrInvalidParam, SaAisError, error_of
from ckpt_client.requests.table_requests import EMPTY_BODY, NO_LIMIT_NS, checkpoint_name, refuse, update_body
from ckpt_client.saf.types import CheckpointCreationAttributes
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import (
    OPEN_FLAGS_ALL,
    SA_CKPT_CHECKPOINT_CREATE,
    SA_CKPT_SECTIONS_ANY,
    SA_CKPT_SECTIONS_FOREVER,
    SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME,
    SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME,
    SA_TIME_MAX,
)
from ckpt_protocol.creation_attributes import attributes_fault
from ckpt_protocol.limits import (
    CALL_BYTES_MAX,
    OPS_PER_UPDATE_MAX,
    SECTION_BYTES_MAX,
    SECTION_ID_BYTES_MAX,
    SIZE_MAX,
)
from ckpt_protocol.messages import Kind, Op

NAME_PREFIX: Final = b"safCkpt="
"""For programs of B.02, a checkpoint's name is a distinguished name that begins with this (R33)."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


class SafRequest(NamedTuple):
    """One request: the name of its SAF call, and what is sent."""

    call: str
    kind: int
    body: bytes = EMPTY_BODY
    timeout_ns: int = 0


def with_call_name(call: str) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Set the SAF call's name on every error that the function raises."""

    def wrap(function: Callable[Given, Result]) -> Callable[Given, Result]:
        @wraps(function)
        def inner(*given: Given.args, **more: Given.kwargs) -> Result:
            try:
                return function(*given, **more)
            except SaAisError as error:
                error.call = error.call or call
                raise

        return inner

    return wrap


def named_error(call: str, code: int, text: str) -> SaAisError:
    """Return the error of a code, with the SAF call's name."""
    error = error_of(code, text)
    error.call = call
    return error


class BeyondLimit(SaAisErrInvalidParam):
    """INVALID_PARAM: more than `maxSectionSize` was when the client last heard of it."""


# -- arguments


def as_bytes(given: Any, what: str, index: int = -1) -> bytes:
    """Return data, or a section id, as bytes. Raises: SaAisError INVALID_PARAM."""
    if type(given) is bytes:
        return given
    try:
        return given.encode() if isinstance(given, str) else memoryview(given).tobytes()
    except (TypeError, ValueError):
        refuse(codes.INVALID_PARAM, f"{what} must be text or bytes, not {type(given).__name__}", index)


def as_section_id(given: Any, index: int = -1) -> bytes:
    """Check and return a section id. Raises: SaAisError INVALID_PARAM."""
    section_id = as_bytes(given, "a section id", index)
    if len(section_id) > SECTION_ID_BYTES_MAX:
        text = f"a section id of {len(section_id)} bytes exceeds {SECTION_ID_BYTES_MAX} bytes"
        refuse(codes.INVALID_PARAM, text, index)
    return section_id


def as_number(given: Any, what: str, index: int = -1) -> int:
    """Check and return a size, an offset or a time: 0 to 2^63-1. Raises: SaAisError INVALID_PARAM."""
    if type(given) is not int or not 0 <= given <= SIZE_MAX:
        refuse(codes.INVALID_PARAM, f"{what} must be an integer from 0 to 2^63-1, not {given!r}", index)
    return given


def as_timeout(given: Any, default_ns: int) -> int:
    """Return a call's time-out: 0 is the default, SA_TIME_MAX no limit (R35, R139).

    Raises: SaAisError INVALID_PARAM.
    """
    if type(given) is not int or not 0 <= given <= SA_TIME_MAX:
        refuse(codes.INVALID_PARAM, f"a time-out must be 0 to SA_TIME_MAX nanoseconds, not {given!r}")
    return min(given or default_ns, NO_LIMIT_NS)


def as_invocation(given: Any) -> int:
    """Check and return a SaInvocationT, an unsigned 64-bit number (R38). Raises: SaAisError INVALID_PARAM."""
    if type(given) is not int or not 0 <= given < 2**64:
        refuse(codes.INVALID_PARAM, f"an invocation must be an unsigned 64-bit number, not {given!r}")
    return given


# -- calls of the service


def open_body(name: Any, open_flags: Any, attributes: Any, new: bool) -> tuple[bytes, int, bytes]:
    """Return (name, open flags, OPEN's body). If `new`, the rules of B.02 hold. Raises: SaAisError.

    The flags are checked first (R27), then whether attributes are due (R23), then their values (R24 to R26).
    """
    if type(open_flags) is bool or not isinstance(open_flags, int) or not 0 < open_flags <= OPEN_FLAGS_ALL:
        refuse(codes.BAD_FLAGS, "open flags must be READ, WRITE or CREATE, or several of them")
    encoded = checkpoint_name(name)
    if new and not encoded.startswith(NAME_PREFIX):
        refuse(
            codes.INVALID_PARAM,
            f"from version B.02 on, a checkpoint's name must start with {NAME_PREFIX.decode()}",
        )
    create = bool(open_flags & SA_CKPT_CHECKPOINT_CREATE)
    if create != (attributes is not None):
        refuse(codes.INVALID_PARAM, "give creation attributes with CREATE, and only with CREATE")
    fields = None
    if attributes is not None:
        try:
            fields = [as_integer(field) for field in CheckpointCreationAttributes(*attributes)]
        except TypeError:
            refuse(codes.INVALID_PARAM, f"creation attributes must be six integers, not {attributes!r}")
        fault = attributes_fault(fields)
        if fault:
            refuse(codes.INVALID_PARAM, fault)
    return encoded, int(open_flags), pack_body([encoded, int(open_flags), fields, not new])


# -- calls of a checkpoint (only the daemon can check ids and data against all limits)


@with_call_name("saCkptSectionCreate")
def section_create(section_id: Any, expiration_time: Any, initial_data: Any, size_max: int) -> SafRequest:
    """SectionCreate. For an empty id the service generates one."""
    call = "saCkptSectionCreate"
    encoded = as_section_id(section_id)
    data = b"" if initial_data is None else _content(initial_data, size_max)
    expiration = as_number(expiration_time, "an expiration time")
    return SafRequest(call, Kind.UPDATE, pack_body([[Op.CREATE, encoded, expiration, data]]))


@with_call_name("saCkptSectionDelete")
def section_delete(section_id: Any) -> SafRequest:
    """SectionDelete."""
    return SafRequest("saCkptSectionDelete", Kind.UPDATE, pack_body([[Op.DELETE, as_section_id(section_id)]]))


@with_call_name("saCkptSectionExpirationTimeSet")
def section_expiration_time_set(section_id: Any, expiration_time: Any) -> SafRequest:
    """SectionExpirationTimeSet, with a time in ns since 1970; SA_TIME_END for never."""
    op = [Op.EXPIRATION_SET, as_section_id(section_id), as_number(expiration_time, "an expiration time")]
    return SafRequest("saCkptSectionExpirationTimeSet", Kind.UPDATE, pack_body([op]))


@with_call_name("saCkptSectionOverwrite")
def overwrite(section_id: Any, data: Any, size_max: int) -> SafRequest:
    """SectionOverwrite, which sets content and size of an existing section."""
    op = [Op.OVERWRITE, as_section_id(section_id), _content(data, size_max)]
    return SafRequest("saCkptSectionOverwrite", Kind.UPDATE, pack_body([op]))


@with_call_name("saCkptCheckpointWrite")
def write(io_vector: Any, size_max: int) -> SafRequest:
    """CheckpointWrite of elements (section_id, data, data_offset), as one atomic update (R115 to R123)."""
    ops: list[list[Any]] = []
    total = 0
    for index, (section_id, data, offset) in enumerate(_elements(io_vector)):
        encoded = as_section_id(section_id, index)
        content = _content(data, size_max, index)
        ops.append([Op.WRITE, encoded, as_number(offset, "an offset", index), content])
        total += len(encoded) + len(content)
        if total > CALL_BYTES_MAX:
            refuse(codes.NO_RESOURCES, f"a call may have at most {CALL_BYTES_MAX} bytes", index)
    return SafRequest("saCkptCheckpointWrite", Kind.UPDATE, update_body(ops))


@with_call_name("saCkptCheckpointRead")
def read(io_vector: Any, size_max: int) -> SafRequest:
    """CheckpointRead of elements (section_id, data_size, data_offset) (R126 to R131).

    Without a size, an element is read to the end of its section.
    """
    elements: list[list[Any]] = []
    for index, (section_id, size, offset) in enumerate(_elements(io_vector)):
        encoded = as_section_id(section_id, index)
        first = as_number(offset, "an offset", index)
        if size is not None and first + as_number(size, "a size", index) > size_max:
            text = f"offset and size exceed maxSectionSize {size_max}"
            raise BeyondLimit(codes.INVALID_PARAM, text, index)
        elements.append([encoded, first, size])
    return SafRequest("saCkptCheckpointRead", Kind.READ, pack_body(elements))


def iterate(
    call: str, sections_chosen: Any, expiration_time: Any, after: bytes | None, limit: int | None
) -> SafRequest:
    """Return the request for a page of sections after `after`, `limit` sections at most."""
    body = pack_body([sections_chosen, expiration_time or 0, after, False, limit])
    return SafRequest(call, Kind.ITERATE, body)


def check_choice(sections_chosen: Any, expiration_time: Any) -> None:
    """Check the arguments of SectionIterationInitialize (R107, R109). Raises: SaAisError INVALID_PARAM."""
    known = isinstance(sections_chosen, int) and not isinstance(sections_chosen, bool)
    if not known or not SA_CKPT_SECTIONS_FOREVER <= sections_chosen <= SA_CKPT_SECTIONS_ANY:
        refuse(codes.INVALID_PARAM, f"{sections_chosen!r} is not a choice of sections")
    timed = (SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME, SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME)
    if expiration_time is not None or sections_chosen in timed:
        as_number(expiration_time, "an expiration time")


def _elements(io_vector: Any) -> list[tuple[Any, Any, Any]]:
    try:
        elements = [(section_id, data, offset) for section_id, data, offset in io_vector]
    except (TypeError, ValueError):
        refuse(
            codes.INVALID_PARAM,
            "an element of an IO vector must be a section id, data or size, and an offset",
        )
    if not elements:
        refuse(codes.INVALID_PARAM, "an IO vector must have at least one element")
    if len(elements) > OPS_PER_UPDATE_MAX:
        refuse(
            codes.NO_RESOURCES, f"a call may have at most {OPS_PER_UPDATE_MAX} elements, not {len(elements)}"
        )
    return elements


def _content(given: Any, size_max: int, index: int = -1) -> bytes:
    content = as_bytes(given, "data", index)
    if len(content) > size_max:
        text = f"{len(content)} bytes exceed maxSectionSize {size_max}"
        raise BeyondLimit(codes.INVALID_PARAM, text, index)
    if len(content) > SECTION_BYTES_MAX:
        refuse(
            codes.NO_RESOURCES,
            f"{len(content)} bytes exceed the limit of {SECTION_BYTES_MAX} bytes for a section",
            index,
        )
    return content
