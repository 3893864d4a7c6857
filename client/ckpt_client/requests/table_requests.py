"""Encode a table's requests and read the answers: pure functions that `Table` and `AsyncTable` share.

A wrong argument is refused here with its SAF code, without asking the daemon. Only the daemon can check what
depends on the current state of the checkpoint.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from ckpt_client.errors import CheckpointEnded, error_of
from ckpt_client.session.call import NEVER_NS
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_CREATE,
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_CHECKPOINT_WRITE,
    SA_CKPT_DEFAULT_SECTION_ID,
    SA_CKPT_SECTIONS_ANY,
    SA_TIME_END,
    SA_TIME_MAX,
    SA_TIME_ONE_MILLISECOND,
)
from ckpt_protocol.creation_attributes import Attributes as Attributes
from ckpt_protocol.errors import FrameError
from ckpt_protocol.limits import (
    CALL_BYTES_MAX,
    NAME_BYTES_MAX,
    OPS_PER_UPDATE_MAX,
    SECTION_BYTES_MAX,
    SECTION_ID_BYTES_MAX,
    SIZE_MAX,
    UPDATE_BODY_BYTES_MAX,
)
from ckpt_protocol.messages import Op
from ckpt_protocol.parse_answers import (
    Page,
    parse_opened,
    parse_page,
    parse_status,
    parse_values,
)
from ckpt_protocol.parse_answers import SectionDescriptor as SectionDescriptor

Bytes = bytes | bytearray | memoryview
Key = str | Bytes
"""A section id: text stands for its UTF-8 bytes."""

Value = str | Bytes

Stored = TypeVar("Stored", bound=Value)

TIMEOUT_S: Final = 10.0
_SECOND_NS: Final = 1_000_000_000
TIMEOUT_NS: Final = int(TIMEOUT_S * _SECOND_NS)
"""A call's time-out unless another is given."""

NO_LIMIT_NS: Final = NEVER_NS // 4
"""The time-out of a call that waits for as long as it takes (73 years). Longer ones are cut to it."""

EMPTY_BODY: Final = pack_body([])


class OpenParameters(NamedTuple):
    """Everything needed to open a checkpoint, and to open it again."""

    name: bytes
    open_flags: int
    attributes: Attributes | None
    grow: bool = False
    """The checkpoint may exist with smaller limits, and is resized then."""

    @property
    def writable(self) -> bool:
        """True if the checkpoint is opened for writing."""
        return bool(self.open_flags & SA_CKPT_CHECKPOINT_WRITE)

    @property
    def body(self) -> bytes:
        """The body of OPEN. Retention is compared: `Table` speaks version B.1.1 of the interface."""
        wanted = None if self.attributes is None else list(self.attributes)
        return pack_body([self.name, self.open_flags, wanted, True, *([True] if self.grow else [])])

    @property
    def again(self) -> bytes:
        """The body of an OPEN that creates nothing, for a checkpoint that was open before."""
        return pack_body([self.name, self.open_flags & ~SA_CKPT_CHECKPOINT_CREATE, None, True])


class Status(NamedTuple):
    """A checkpoint's state."""

    attributes: Attributes
    sections: int
    memory_used_bytes: int
    active: str | None
    """The active replica's node."""

    replicas: tuple[tuple[str, bool], ...]
    """(node_id, in_sync) of each replica."""

    opens: int
    unlinked: bool


def refuse(code: int, text: str, index: int = -1) -> NoReturn:
    """Raise the error of a code. `index` is the element at fault in a call on several sections."""
    raise error_of(code, text, index)


# -- arguments


def one_of(first: int | None, second: int | None) -> int | None:
    """Return what was given under one of two names. Raises: SaAisError INVALID_PARAM."""
    if first is not None and second is not None:
        refuse(codes.INVALID_PARAM, "a limit is given twice, under both of its names")
    return second if first is None else first


def checkpoint_name(name: Key) -> bytes:
    """Check and encode a name: UTF-8, 1 to 2,048 bytes, no NUL. Raises: SaAisError INVALID_PARAM, TOO_BIG."""
    try:
        encoded = name.encode() if isinstance(name, str) else memoryview(name).tobytes()
        encoded.decode()
    except (TypeError, ValueError):  # a UnicodeError is a ValueError
        refuse(codes.INVALID_PARAM, f"a checkpoint's name must be UTF-8, not {name!r}")
    if not encoded or b"\0" in encoded:
        refuse(codes.INVALID_PARAM, "a checkpoint's name must have at least one byte and no NUL")
    if len(encoded) > NAME_BYTES_MAX:
        refuse(codes.TOO_BIG, f"a checkpoint's name of {len(encoded)} bytes exceeds {NAME_BYTES_MAX} bytes")
    return encoded


def timeout_in_ns(timeout: float | None, default_ns: int = TIMEOUT_NS) -> int:
    """Return a time-out (seconds; None: the default; `math.inf`: no limit) in ns.

    Raises: SaAisError INVALID_PARAM.
    """
    if timeout is None:
        return default_ns
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        refuse(codes.INVALID_PARAM, f"a time-out must be a positive number of seconds, not {timeout!r}")
    return int(timeout * _SECOND_NS) if timeout < NO_LIMIT_NS // _SECOND_NS else NO_LIMIT_NS


def retention_in_ns(retention_ms: int) -> int:
    """Return a retention time in ms as ns; SA_TIME_MAX: for ever. Raises: SaAisError INVALID_PARAM."""
    if type(retention_ms) is not int or retention_ms < 0:
        refuse(codes.INVALID_PARAM, f"a retention time must be 0 or more milliseconds, not {retention_ms!r}")
    if retention_ms == SA_TIME_MAX:
        return SA_TIME_MAX
    if retention_ms > SA_TIME_MAX // SA_TIME_ONE_MILLISECOND:
        refuse(codes.INVALID_PARAM, f"a retention time of {retention_ms} ms exceeds SA_TIME_MAX")
    return retention_ms * SA_TIME_ONE_MILLISECOND


def retention_in_ms(retention_ns: int) -> int:
    """Return a retention time in ns as `Table` shows it, in ms; SA_TIME_MAX: for ever."""
    return SA_TIME_MAX if retention_ns == SA_TIME_MAX else retention_ns // SA_TIME_ONE_MILLISECOND


def open_parameters(
    name: Key,
    sections_max: int | None,
    section_bytes_max: int | None,
    section_id_bytes_max: int | None,
    flags: int,
    retention_ms: int,
    read_only: bool,
    grow: bool = False,
) -> OpenParameters:
    """Return how to open a checkpoint: with all three limits create it if missing, with none it must exist.

    With `grow`, one that exists with smaller limits is resized.

    Raises: SaAisError INVALID_PARAM, TOO_BIG.
    """
    encoded = checkpoint_name(name)
    if type(grow) is not bool:
        refuse(codes.INVALID_PARAM, f"grow must be True or False, not {grow!r}")
    limits = (sections_max, section_bytes_max, section_id_bytes_max)
    if limits == (None, None, None):
        if grow:
            refuse(codes.INVALID_PARAM, "to grow a checkpoint, give all three limits")
        open_flags = SA_CKPT_CHECKPOINT_READ | (0 if read_only else SA_CKPT_CHECKPOINT_WRITE)
        return OpenParameters(encoded, open_flags, None)
    if read_only:
        refuse(codes.INVALID_PARAM, "a read-only table does not create its checkpoint: leave the limits out")
    if sections_max is None or section_bytes_max is None or section_id_bytes_max is None:
        refuse(codes.INVALID_PARAM, "give all three limits (to create the checkpoint) or none (to open it)")
    for limit in (*limits, flags):
        if type(limit) is not int or not 0 <= limit <= SIZE_MAX:
            refuse(codes.INVALID_PARAM, f"limits and flags must be integers from 0 to 2^63-1, not {limit!r}")
    checkpoint_size = sections_max * section_bytes_max
    if checkpoint_size > SIZE_MAX:
        refuse(codes.INVALID_PARAM, "the number of sections times their size exceeds 2^63-1")
    retention_ns = retention_in_ns(retention_ms)
    attributes = Attributes(
        flags, checkpoint_size, retention_ns, sections_max, section_bytes_max, section_id_bytes_max
    )
    open_flags = SA_CKPT_CHECKPOINT_CREATE | SA_CKPT_CHECKPOINT_READ | SA_CKPT_CHECKPOINT_WRITE
    return OpenParameters(encoded, open_flags, attributes, grow)


def stored_bytes(value: Value) -> bytes:
    """Return the bytes that a text or bytes value stands for."""
    return value.encode() if isinstance(value, str) else bytes(value)


def section_id(attributes: Attributes, key: Key) -> bytes:
    """Return the section id for a key. Raises: SaAisError INVALID_PARAM."""
    if attributes.sections_max == 1:
        return SA_CKPT_DEFAULT_SECTION_ID
    try:
        encoded = key.encode() if isinstance(key, str) else memoryview(key).tobytes()
    except (TypeError, ValueError):  # UnicodeEncodeError is a ValueError
        refuse(codes.INVALID_PARAM, f"a key must be text or bytes, not {key!r}")
    if len(encoded) > SECTION_ID_BYTES_MAX:
        refuse(codes.INVALID_PARAM, f"a key of {len(encoded)} bytes exceeds {SECTION_ID_BYTES_MAX} bytes")
    return encoded


def content_of(value: Value) -> Bytes:
    """Return the content that a value stands for. Raises: SaAisError INVALID_PARAM, NO_RESOURCES.

    Only the service compares its size with `maxSectionSize`: another program may have resized the checkpoint.
    """
    content: Bytes
    if type(value) is bytes:
        content = value
    else:
        try:
            content = value.encode() if isinstance(value, str) else memoryview(value).tobytes()
        except (TypeError, ValueError):
            refuse(codes.INVALID_PARAM, f"a value must be text or bytes, not {type(value).__name__}")
    if len(content) > SECTION_BYTES_MAX:
        refuse(codes.NO_RESOURCES, f"a value of {len(content)} bytes exceeds {SECTION_BYTES_MAX} bytes")
    return content


def check_expiration(expiration_ns: int | None) -> None:
    """Check an expiration time; None is none. Raises: SaAisError INVALID_PARAM."""
    if expiration_ns is not None and (
        type(expiration_ns) is not int or not 0 <= expiration_ns <= SA_TIME_END
    ):
        refuse(codes.INVALID_PARAM, f"an expiration time must be in ns since 1970, not {expiration_ns!r}")


# -- bodies


def unlink_body(name: Key, creation_id: int = 0, secret: int = 0) -> bytes:
    """UNLINK: free a name. With a creation id, do so only if that checkpoint still has it.

    `secret`: that of the leader. Raises: SaAisError INVALID_PARAM, TOO_BIG.
    """
    fields = [checkpoint_name(name), creation_id, secret]
    return pack_body(fields if secret else fields[:2] if creation_id else fields[:1])


def put_body(attributes: Attributes, key: Key, value: Value, expiration_ns: int | None) -> bytes:
    """UPDATE: set one section's content and size; create it if it is missing."""
    if type(key) is not bytes or attributes.sections_max == 1 or len(key) > SECTION_ID_BYTES_MAX:
        key = section_id(attributes, key)
    if type(value) is not bytes or len(value) > SECTION_BYTES_MAX:
        value = content_of(value)
    if expiration_ns is not None:
        check_expiration(expiration_ns)
    return pack_body([[Op.PUT, key, value, expiration_ns]])  # One section with its id always fits.


def update_body(ops: list[list[Any]], index: int = -1) -> bytes:
    """UPDATE: several operations. Raises: SaAisError NO_RESOURCES if they do not fit into one update."""
    body = pack_body(ops)
    if len(body) > UPDATE_BODY_BYTES_MAX:
        refuse(
            codes.NO_RESOURCES, f"an update of {len(body)} bytes exceeds {UPDATE_BODY_BYTES_MAX} bytes", index
        )
    return body


def check_call_bytes(total_bytes: int) -> None:
    """Check the bytes of ids and data of one call. Raises: SaAisError NO_RESOURCES."""
    if total_bytes > CALL_BYTES_MAX:
        refuse(codes.NO_RESOURCES, f"a call of {total_bytes} bytes exceeds {CALL_BYTES_MAX} bytes")


def pairs_of(values: Mapping[Any, Any] | Iterable[tuple[Key, Any]]) -> list[tuple[Key, Any]]:
    """Return several sections as (key, value) pairs. Raises: SaAisError INVALID_PARAM.

    What has `keys` is asked for each value, as `dict.update` does: a row of sqlite3 is no `Mapping`.
    """
    row: Any = values
    try:
        if hasattr(row, "keys") and not isinstance(values, Mapping):
            return [(key, row[key]) for key in row.keys()]  # noqa: SIM118 (It iterates over its values.)
        return [(key, value) for key, value in (values.items() if isinstance(values, Mapping) else values)]
    except (TypeError, ValueError):
        refuse(codes.INVALID_PARAM, "give several sections as a mapping or as (key, value) pairs")


def check_count(count: int) -> None:
    """Check how many sections a call names. Raises: SaAisError INVALID_PARAM, NO_RESOURCES."""
    if not count:
        refuse(codes.INVALID_PARAM, "no section is named")
    if count > OPS_PER_UPDATE_MAX:
        refuse(codes.NO_RESOURCES, f"a call may name at most {OPS_PER_UPDATE_MAX} sections, not {count}")


def delete_body(attributes: Attributes, key: Key) -> bytes:
    """UPDATE: delete one section."""
    return pack_body([[Op.DELETE, section_id(attributes, key)]])


def key_list(keys: Iterable[Key]) -> list[Key]:
    """Return several keys as a list of at least one. Raises: SaAisError INVALID_PARAM."""
    if is_single_key(keys):  # Its letters would be the keys.
        refuse(codes.INVALID_PARAM, f"give the keys as a list, also a single one: [{keys!r}]")
    try:
        wanted = list(keys)
    except TypeError:
        refuse(codes.INVALID_PARAM, f"give the keys as a list, not as {keys!r}")
    check_count(len(wanted))
    return wanted


def read_body(attributes: Attributes, keys: list[Key]) -> bytes:
    """READ: several whole sections, from one state of the checkpoint."""
    return pack_body([[section_id(attributes, key), 0, None] for key in keys])


def read_one_body(attributes: Attributes, key: Key) -> bytes:
    """READ: one whole section."""
    if type(key) is not bytes or attributes.sections_max == 1:
        key = section_id(attributes, key)
    return pack_body([[key, 0, None]])


def read_versioned_body(attributes: Attributes, key: Key) -> bytes:
    """READ: one whole section and its version."""
    return pack_body([[section_id(attributes, key), 0, None, True]])


def probe_body(attributes: Attributes, key: Key) -> bytes:
    """READ: no byte of a section, only to find out whether it exists."""
    return pack_body([[section_id(attributes, key), 0, 0]])


def iterate_body(after: bytes | None, with_values: bool, with_position: bool = False) -> bytes:
    """ITERATE: the page of sections after `after`."""
    more = [None, False, True] if with_position else []
    return pack_body([SA_CKPT_SECTIONS_ANY, 0, after, with_values, *more])


def is_single_key(keys: object) -> bool:
    """Return True if the argument of `Read` is one key rather than several."""
    return isinstance(keys, str | bytes | bytearray | memoryview)


# -- opening again


def ended(why: str) -> CheckpointEnded:
    """Return the error of a table that gets a new session and finds its checkpoint gone."""
    text = f"the checkpoint ended while this table had no session ({why}); the next call opens it again"
    return CheckpointEnded(codes.NOT_EXIST, text)


def reopened_text(name: bytes, node_id: str) -> str:
    """Return the log line of a table that has opened its checkpoint again."""
    return f"checkpoint {name.decode()!r} is open again, in a new session at node {node_id}"


# -- answers


def raise_malformed(what: str) -> NoReturn:
    """Raise the error for an answer that no daemon gives."""
    raise error_of(codes.SaAisErrorT.SA_AIS_ERR_LIBRARY, f"the daemon's answer to {what} is malformed")


def parse_open_answer(payload: Any) -> tuple[int, Attributes]:
    """Return (handle, attributes in force) from the answer to OPEN."""
    try:
        opened = parse_opened(payload)
    except FrameError:
        raise_malformed("OPEN")
    return opened.handle, Attributes(*opened.attributes)


def values_of(payload: Any, count: int) -> list[bytes]:
    """Return the values in the answer to READ."""
    try:
        values = parse_values(payload)
    except FrameError:
        raise_malformed("READ")
    if len(values) != count:
        raise_malformed("READ")
    return values


def value_of(payload: Any) -> bytes:
    """Return the one value in the answer to READ."""
    if type(payload) is not list or len(payload) != 1 or type(payload[0]) is not bytes:
        raise_malformed("READ")
    return payload[0]


def page_of(payload: Any) -> tuple[list[SectionDescriptor], bytes | None]:
    """Return (sections, where the next page begins or None) from the answer to ITERATE."""
    page = positioned_page_of(payload)
    return page.sections, page.after


def positioned_page_of(payload: Any) -> Page:
    """Return the page of sections in the answer to ITERATE."""
    try:
        return parse_page(payload)
    except FrameError:
        raise_malformed("ITERATE")


def item_of(section: SectionDescriptor) -> tuple[bytes, bytes]:
    """Return (key, value).

    Raises: SaAisError FAILED_OPERATION for a corrupted section, whose value is never served.
    """
    if section.value is None:
        refuse(
            codes.FAILED_OPERATION,
            f"section {section.section_id[:32]!r} is corrupted until it is overwritten",
        )
    return section.section_id, section.value


def status_of(payload: Any) -> Status:
    """Return the state in the answer to STATUS."""
    try:
        status = parse_status(payload)
    except FrameError:
        raise_malformed("STATUS")
    return Status(Attributes(*status.attributes), *status[1:])


def values_or_value(values: list[Any]) -> Any:
    """Return values as `Read` of a list does: several as a list, one by itself."""
    return values if len(values) != 1 else values[0]
