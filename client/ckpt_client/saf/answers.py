"""What the daemon's answers mean to a SAF program. Pure."""

from typing import Any

from ckpt_client.requests import table_requests
from ckpt_client.saf.saf_requests import as_bytes
from ckpt_client.saf.types import CheckpointCreationAttributes, CheckpointDescriptor, SectionDescriptor
from ckpt_protocol import codes


def descriptor_of(payload: Any) -> CheckpointDescriptor:
    """Return the descriptor in the answer to STATUS."""
    status = table_requests.status_of(payload)
    attributes = CheckpointCreationAttributes(*status.attributes)
    return CheckpointDescriptor(attributes, status.sections, status.memory_used_bytes)


def created_id(section_id: Any, payload: Any) -> bytes:
    """Return the id of a new section: the generated one if there is one, else the given one."""
    if type(payload) is list and payload and type(payload[0]) is bytes:
        return payload[0]
    return as_bytes(section_id, "a section id")


def values_of(payload: Any) -> list[bytes]:
    """Return the values in the answer to READ."""
    return table_requests.values_of(payload, len(payload) if type(payload) is list else 0)


def page_of(payload: Any) -> tuple[list[SectionDescriptor], bytes | None]:
    """Return the sections in the answer to ITERATE, and where the next page begins (None: there is none)."""
    page, after = table_requests.page_of(payload)
    return [SectionDescriptor(*section[:5]) for section in page], after


def code_of(error: BaseException | None) -> codes.SaAisErrorT:
    """Return the code with which a callback reports how a call ended."""
    code = getattr(error, "code", codes.SaAisErrorT.SA_AIS_ERR_LIBRARY) if error is not None else codes.OK
    try:
        return codes.SaAisErrorT(code)
    except ValueError:  # This library does not know the code yet.
        return codes.SaAisErrorT.SA_AIS_ERR_LIBRARY
