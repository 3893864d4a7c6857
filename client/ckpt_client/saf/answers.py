"""What the daemon's answers mean to a SAF program. Pure."""

from typing import Any

from ckpt_client.saf.saf_requests import as_bytes
from ckpt_client.saf.types import CheckpointCreationAttributes, CheckpointDescriptor, SectionDescriptor
from ckpt_client.session import table_requests
from ckpt_protocol import codes


def descriptor_of(payload: Any) -> CheckpointDescriptor:
    """STATUS's answer."""
    status = table_requests.status_of(payload)
    attributes = CheckpointCreationAttributes(*status.attributes)
    return CheckpointDescriptor(attributes, status.sections, status.memory_used_bytes)


def created_id(section_id: Any, payload: Any) -> bytes:
    """The id of a new section: the one that was made up, where one was."""
    if type(payload) is list and payload and type(payload[0]) is bytes:
        return payload[0]
    return as_bytes(section_id, "a section id")


def values_of(payload: Any) -> list[bytes]:
    """READ's answer."""
    return table_requests.values_of(payload, len(payload) if type(payload) is list else 0)


def page_of(payload: Any) -> tuple[list[SectionDescriptor], bytes | None]:
    """ITERATE's answer: the sections, and where the next page begins (None: there is none)."""
    page, after = table_requests.page_of(payload)
    return [SectionDescriptor(*section[:5]) for section in page], after


def code_of(error: BaseException | None) -> codes.SaAisErrorT:
    """How a call ended, as a callback tells it."""
    code = getattr(error, "code", codes.SaAisErrorT.SA_AIS_ERR_LIBRARY) if error is not None else codes.OK
    try:
        return codes.SaAisErrorT(code)
    except ValueError:  # A code that this library does not know yet.
        return codes.SaAisErrorT.SA_AIS_ERR_LIBRARY
