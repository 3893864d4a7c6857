"""Flags, times and enumerations of the checkpoint service, with the SA Forum's numbers.

Source: SAI-AIS-CKPT-B.02.02, sections 3.3 and 3.4; SAI-Overview-B.02.01 for the times.
"""

from typing import Final

# SaTimeT: nanoseconds in a signed 64-bit integer.
SA_TIME_UNKNOWN: Final = -(2**63)
SA_TIME_BEGIN: Final = 0
SA_TIME_END: Final = 2**63 - 1
SA_TIME_MAX: Final = SA_TIME_END
SA_TIME_ONE_MICROSECOND: Final = 10**3
SA_TIME_ONE_MILLISECOND: Final = 10**6
SA_TIME_ONE_SECOND: Final = 10**9
SA_TIME_ONE_MINUTE: Final = 60 * 10**9
SA_TIME_ONE_HOUR: Final = 3600 * 10**9
SA_TIME_ONE_DAY: Final = 86400 * 10**9

# SaCkptCheckpointCreationFlagsT: exactly one update flag, optionally COLLOCATED.
SA_CKPT_WR_ALL_REPLICAS: Final = 1
SA_CKPT_WR_ACTIVE_REPLICA: Final = 2
SA_CKPT_WR_ACTIVE_REPLICA_WEAK: Final = 4
SA_CKPT_CHECKPOINT_COLLOCATED: Final = 8
UPDATE_FLAGS: Final = (
    SA_CKPT_WR_ALL_REPLICAS,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
)

# SaCkptCheckpointOpenFlagsT
SA_CKPT_CHECKPOINT_READ: Final = 1
SA_CKPT_CHECKPOINT_WRITE: Final = 2
SA_CKPT_CHECKPOINT_CREATE: Final = 4
OPEN_FLAGS_ALL: Final = 7

# Both are a section id of length 0 (section 3.3.3.1).
SA_CKPT_DEFAULT_SECTION_ID: Final = b""
SA_CKPT_GENERATED_SECTION_ID: Final = b""

# SaCkptSectionStateT
SA_CKPT_SECTION_VALID: Final = 1
SA_CKPT_SECTION_CORRUPTED: Final = 2

# SaCkptSectionsChosenT
SA_CKPT_SECTIONS_FOREVER: Final = 1
SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME: Final = 2
SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME: Final = 3
SA_CKPT_SECTIONS_CORRUPTED: Final = 4
SA_CKPT_SECTIONS_ANY: Final = 5

# SaDispatchFlagsT
SA_DISPATCH_ONE: Final = 1
SA_DISPATCH_ALL: Final = 2
SA_DISPATCH_BLOCKING: Final = 3

SA_MAX_NAME_LENGTH: Final = 256
