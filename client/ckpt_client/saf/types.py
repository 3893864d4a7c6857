"""The SA Forum's structures and enumerations as Python values. Times are in ns, sizes in bytes.

Pure. They are what the calls take and return, without the pointers that C needs.
"""

from enum import IntEnum
from typing import Final, NamedTuple

from ckpt_client.checkpoint.tracking import SectionChange, SectionChangeT
from ckpt_protocol.constants import SA_CKPT_SECTION_VALID, SA_TIME_END

__all__ = [
    "DEFAULT",
    "TIMEOUT_NS",
    "CheckpointCreationAttributes",
    "CheckpointDescriptor",
    "DispatchFlags",
    "SectionChange",
    "SectionChangeT",
    "SectionDescriptor",
    "Version",
]

DEFAULT: Final = 0
"""This time-out stands for the service's own (`initialize`'s `timeout_ns`). (R35, R139)"""

TIMEOUT_NS: Final = 10_000_000_000
"""The time-out of a call unless `initialize` was given another."""

Version = tuple[str, int, int]
"""releaseCode, majorVersion, minorVersion."""


class DispatchFlags(IntEnum):
    """How much `dispatch` does. Source: SaDispatchFlagsT."""

    ONE = 1
    ALL = 2
    BLOCKING = 3


class CheckpointCreationAttributes(NamedTuple):
    """How a checkpoint is made. Source: SaCkptCheckpointCreationAttributesT."""

    creation_flags: int
    checkpoint_size: int
    retention_duration: int
    max_sections: int
    max_section_size: int
    max_section_id_size: int


class CheckpointDescriptor(NamedTuple):
    """A checkpoint's state. Source: SaCkptCheckpointDescriptorT (R83 to R85)."""

    creation_attributes: CheckpointCreationAttributes
    """The creation attributes, with the retention duration that is now in force."""

    number_of_sections: int
    memory_used: int
    """The sum of the sections' sizes."""


class SectionDescriptor(NamedTuple):
    """A section's state. Times since 1970; SA_TIME_END: never. Source: SaCkptSectionDescriptorT."""

    section_id: bytes
    expiration_time: int = SA_TIME_END
    section_size: int = 0
    section_state: int = SA_CKPT_SECTION_VALID
    last_update: int = 0
