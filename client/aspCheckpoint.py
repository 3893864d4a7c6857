"""ASP's `aspCheckpoint` on ckptd: `Table`, `CheckpointError` and the SA Forum's constants."""

from ckpt_client.asp.names import SAF_CONSTANTS, SECTION_IDS
from ckpt_client.errors import CheckpointError
from ckpt_client.table import Table

globals().update(SAF_CONSTANTS, **SECTION_IDS)

__all__ = ["CheckpointError", "Table"]
__all__ += [*SAF_CONSTANTS, *SECTION_IDS]
