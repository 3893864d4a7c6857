"""The SA Forum's return codes.

Source: SAI-AIS-CKPT-B.02.02 and SAI-Overview-B.02.01, `SaAisErrorT`. The numbers are
on the wire and in programs: they never change.
"""

from enum import IntEnum
from typing import Final


class SaAisErrorT(IntEnum):
    """The outcome of a call of the Application Interface Specification."""

    SA_AIS_OK = 1
    SA_AIS_ERR_LIBRARY = 2
    SA_AIS_ERR_VERSION = 3
    SA_AIS_ERR_INIT = 4
    SA_AIS_ERR_TIMEOUT = 5
    SA_AIS_ERR_TRY_AGAIN = 6
    SA_AIS_ERR_INVALID_PARAM = 7
    SA_AIS_ERR_NO_MEMORY = 8
    SA_AIS_ERR_BAD_HANDLE = 9
    SA_AIS_ERR_BUSY = 10
    SA_AIS_ERR_ACCESS = 11
    SA_AIS_ERR_NOT_EXIST = 12
    SA_AIS_ERR_NAME_TOO_LONG = 13
    SA_AIS_ERR_EXIST = 14
    SA_AIS_ERR_NO_SPACE = 15
    SA_AIS_ERR_INTERRUPT = 16
    SA_AIS_ERR_NAME_NOT_FOUND = 17
    SA_AIS_ERR_NO_RESOURCES = 18
    SA_AIS_ERR_NOT_SUPPORTED = 19
    SA_AIS_ERR_BAD_OPERATION = 20
    SA_AIS_ERR_FAILED_OPERATION = 21
    SA_AIS_ERR_MESSAGE_ERROR = 22
    SA_AIS_ERR_QUEUE_FULL = 23
    SA_AIS_ERR_QUEUE_NOT_AVAILABLE = 24
    SA_AIS_ERR_BAD_FLAGS = 25
    SA_AIS_ERR_TOO_BIG = 26
    SA_AIS_ERR_NO_SECTIONS = 27
    SA_AIS_ERR_NO_OP = 28
    SA_AIS_ERR_REPAIR_PENDING = 29
    SA_AIS_ERR_NO_BINDINGS = 30
    SA_AIS_ERR_UNAVAILABLE = 31
    SA_AIS_ERR_CAMPAIGN_ERROR_DETECTED = 32
    SA_AIS_ERR_CAMPAIGN_PROC_FAILED = 33
    SA_AIS_ERR_CAMPAIGN_CANCELED = 34
    SA_AIS_ERR_CAMPAIGN_FAILED = 35
    SA_AIS_ERR_CAMPAIGN_SUSPENDED = 36
    SA_AIS_ERR_CAMPAIGN_SUSPENDING = 37
    SA_AIS_ERR_ACCESS_DENIED = 38
    SA_AIS_ERR_NOT_READY = 39
    SA_AIS_ERR_DEPLOYMENT = 40


# Plain integers, for the hot paths: looking up an attribute of an enum would slow them down.
OK: Final = 1
LIBRARY: Final = 2
VERSION: Final = 3
TIMEOUT: Final = 5
TRY_AGAIN: Final = 6
INVALID_PARAM: Final = 7
NO_MEMORY: Final = 8
BAD_HANDLE: Final = 9
ACCESS: Final = 11
NOT_EXIST: Final = 12
EXIST: Final = 14
NO_SPACE: Final = 15
NO_RESOURCES: Final = 18
NOT_SUPPORTED: Final = 19
BAD_OPERATION: Final = 20
FAILED_OPERATION: Final = 21
MESSAGE_ERROR: Final = 22
BAD_FLAGS: Final = 25
TOO_BIG: Final = 26
UNAVAILABLE: Final = 31


def code_name(code: int) -> str:
    """Return the name of a return code, or `UNKNOWN_ERROR_CODE` if the number is not one."""
    try:
        return SaAisErrorT(code).name
    except ValueError:
        return "UNKNOWN_ERROR_CODE"
