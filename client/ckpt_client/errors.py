"""Every error of the client, with its SAF code.

    SystemError
        SaAisError                   a call of the service failed: .code .text .index, args == (code,)
            SaAisErrTimeout          one subclass for each code but SA_AIS_OK: the name of
            SaAisErrNotExist ...     the code in CapWords (SA_AIS_ERR_NOT_EXIST)
                CheckpointEnded      NOT_EXIST: a table got a new session, and its checkpoint was gone
                LeadershipEnded      ACCESS: the handle leads no more (what LeadershipLost has)
    Exception
        Error                        ASP's misc.Error: .reasonStr .errCode .errContext
            CheckpointError          what Table and AsyncTable raise: .aspErrorCode (the SaAisError) .text
                CheckpointKeyError   also a KeyError: table[key], pop, touch … of a missing key
                UndecodableValue     FAILED_OPERATION: a typed table's codec cannot read a value
                VersionConflict      a condition of an update does not hold: .key .version
                LeadershipLost       ACCESS: the table leads no more, so it does not write

In both families `e[0]` is the code, as programs written for Python 2 expect.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.codes import SaAisErrorT, code_name

__all__ = [
    "ERROR_CLASSES",
    "CheckpointEnded",
    "CheckpointError",
    "CheckpointKeyError",
    "Error",
    "LeadershipEnded",
    "LeadershipLost",
    "SaAisErrAccess",
    "SaAisErrAccessDenied",
    "SaAisErrBadFlags",
    "SaAisErrBadHandle",
    "SaAisErrBadOperation",
    "SaAisErrBusy",
    "SaAisErrCampaignCanceled",
    "SaAisErrCampaignErrorDetected",
    "SaAisErrCampaignFailed",
    "SaAisErrCampaignProcFailed",
    "SaAisErrCampaignSuspended",
    "SaAisErrCampaignSuspending",
    "SaAisErrDeployment",
    "SaAisErrExist",
    "SaAisErrFailedOperation",
    "SaAisErrInit",
    "SaAisErrInterrupt",
    "SaAisErrInvalidParam",
    "SaAisErrLibrary",
    "SaAisErrMessageError",
    "SaAisErrNameNotFound",
    "SaAisErrNameTooLong",
    "SaAisErrNoBindings",
    "SaAisErrNoMemory",
    "SaAisErrNoOp",
    "SaAisErrNoResources",
    "SaAisErrNoSections",
    "SaAisErrNoSpace",
    "SaAisErrNotExist",
    "SaAisErrNotReady",
    "SaAisErrNotSupported",
    "SaAisErrQueueFull",
    "SaAisErrQueueNotAvailable",
    "SaAisErrRepairPending",
    "SaAisErrTimeout",
    "SaAisErrTooBig",
    "SaAisErrTryAgain",
    "SaAisErrUnavailable",
    "SaAisErrVersion",
    "SaAisError",
    "VersionConflict",
    "error_of",
]


def _as_code(code: int) -> int:
    """Return the enum member of a known code (it equals the number), or an unknown number unchanged."""
    try:
        return SaAisErrorT(code)
    except ValueError:
        return code


class SaAisError(SystemError):
    """A call of the Checkpoint Service ended with a code other than SA_AIS_OK.

    Make one with `error_of`, which picks the subclass of the code.
    """

    version: tuple[str, int, int] | None = None
    """With ERR_VERSION: the version that is supported."""

    def __init__(self, code: int, text: str = "", index: int = -1) -> None:
        self.code = _as_code(code)
        """A `SaAisErrorT`, which equals its number."""

        self.text = text
        """What happened."""

        self.index = index
        """The lowest element at fault in a call on several sections; -1 for none."""

        self.detail: object = None
        """What the service's refusal says beside its text."""

        self.call = ""
        """The name of the SAF function, if one was called."""

        super().__init__(self.code)

    @property
    def erroneous_vector_index(self) -> int | None:
        """The lowest element at fault in a call on several sections, None for none.

        Source: erroneousVectorIndex (R121).
        """
        return self.index if self.index >= 0 else None

    def __getitem__(self, place: int) -> int:
        """Return the code for `e[0]`, as exceptions of Python 2 did."""
        return (self.code,)[place]

    def __str__(self) -> str:
        name = code_name(self.code)
        return f"{name}: {self.text}" if self.text else name


class SaAisErrLibrary(SaAisError):
    """SA_AIS_ERR_LIBRARY (2)."""


class SaAisErrVersion(SaAisError):
    """SA_AIS_ERR_VERSION (3)."""


class SaAisErrInit(SaAisError):
    """SA_AIS_ERR_INIT (4)."""


class SaAisErrTimeout(SaAisError):
    """SA_AIS_ERR_TIMEOUT (5)."""


class SaAisErrTryAgain(SaAisError):
    """SA_AIS_ERR_TRY_AGAIN (6)."""


class SaAisErrInvalidParam(SaAisError):
    """SA_AIS_ERR_INVALID_PARAM (7)."""


class SaAisErrNoMemory(SaAisError):
    """SA_AIS_ERR_NO_MEMORY (8)."""


class SaAisErrBadHandle(SaAisError):
    """SA_AIS_ERR_BAD_HANDLE (9)."""


class SaAisErrBusy(SaAisError):
    """SA_AIS_ERR_BUSY (10)."""


class SaAisErrAccess(SaAisError):
    """SA_AIS_ERR_ACCESS (11)."""


class SaAisErrNotExist(SaAisError):
    """SA_AIS_ERR_NOT_EXIST (12)."""


class SaAisErrNameTooLong(SaAisError):
    """SA_AIS_ERR_NAME_TOO_LONG (13)."""


class SaAisErrExist(SaAisError):
    """SA_AIS_ERR_EXIST (14)."""


class SaAisErrNoSpace(SaAisError):
    """SA_AIS_ERR_NO_SPACE (15)."""


class SaAisErrInterrupt(SaAisError):
    """SA_AIS_ERR_INTERRUPT (16)."""


class SaAisErrNameNotFound(SaAisError):
    """SA_AIS_ERR_NAME_NOT_FOUND (17)."""


class SaAisErrNoResources(SaAisError):
    """SA_AIS_ERR_NO_RESOURCES (18)."""


class SaAisErrNotSupported(SaAisError):
    """SA_AIS_ERR_NOT_SUPPORTED (19)."""


class SaAisErrBadOperation(SaAisError):
    """SA_AIS_ERR_BAD_OPERATION (20)."""


class SaAisErrFailedOperation(SaAisError):
    """SA_AIS_ERR_FAILED_OPERATION (21)."""


class SaAisErrMessageError(SaAisError):
    """SA_AIS_ERR_MESSAGE_ERROR (22)."""


class SaAisErrQueueFull(SaAisError):
    """SA_AIS_ERR_QUEUE_FULL (23)."""


class SaAisErrQueueNotAvailable(SaAisError):
    """SA_AIS_ERR_QUEUE_NOT_AVAILABLE (24)."""


class SaAisErrBadFlags(SaAisError):
    """SA_AIS_ERR_BAD_FLAGS (25)."""


class SaAisErrTooBig(SaAisError):
    """SA_AIS_ERR_TOO_BIG (26)."""


class SaAisErrNoSections(SaAisError):
    """SA_AIS_ERR_NO_SECTIONS (27)."""


class SaAisErrNoOp(SaAisError):
    """SA_AIS_ERR_NO_OP (28)."""


class SaAisErrRepairPending(SaAisError):
    """SA_AIS_ERR_REPAIR_PENDING (29)."""


class SaAisErrNoBindings(SaAisError):
    """SA_AIS_ERR_NO_BINDINGS (30)."""


class SaAisErrUnavailable(SaAisError):
    """SA_AIS_ERR_UNAVAILABLE (31)."""


class SaAisErrCampaignErrorDetected(SaAisError):
    """SA_AIS_ERR_CAMPAIGN_ERROR_DETECTED (32)."""


class SaAisErrCampaignProcFailed(SaAisError):
    """SA_AIS_ERR_CAMPAIGN_PROC_FAILED (33)."""


class SaAisErrCampaignCanceled(SaAisError):
    """SA_AIS_ERR_CAMPAIGN_CANCELED (34)."""


class SaAisErrCampaignFailed(SaAisError):
    """SA_AIS_ERR_CAMPAIGN_FAILED (35)."""


class SaAisErrCampaignSuspended(SaAisError):
    """SA_AIS_ERR_CAMPAIGN_SUSPENDED (36)."""


class SaAisErrCampaignSuspending(SaAisError):
    """SA_AIS_ERR_CAMPAIGN_SUSPENDING (37)."""


class SaAisErrAccessDenied(SaAisError):
    """SA_AIS_ERR_ACCESS_DENIED (38)."""


class SaAisErrNotReady(SaAisError):
    """SA_AIS_ERR_NOT_READY (39)."""


class SaAisErrDeployment(SaAisError):
    """SA_AIS_ERR_DEPLOYMENT (40)."""


def _class_name(code: SaAisErrorT) -> str:
    words = code.name.removeprefix("SA_AIS_").split("_")
    return "SaAis" + "".join(word.capitalize() for word in words)


ERROR_CLASSES: Final[dict[int, type[SaAisError]]] = {
    code: globals()[_class_name(code)] for code in SaAisErrorT if code != codes.OK
}
"""The subclass of each code."""


def error_of(code: int, text: str = "", index: int = -1, detail: object = None) -> SaAisError:
    """Return the error of a code as an instance of its own class; an unknown code becomes LIBRARY."""
    if code in ERROR_CLASSES:
        error = ERROR_CLASSES[code](code, text, index)
        error.detail = detail
        return error
    return ERROR_CLASSES[codes.LIBRARY](
        codes.LIBRARY, f"the daemon answered with code {code} ({text})", index
    )


class CheckpointEnded(SaAisErrNotExist):
    """NOT_EXIST: the checkpoint ended while the table had no session.

    The table's next call opens it as the constructor did.
    """


class LeadershipEnded(SaAisErrAccess):
    """ACCESS: the handle leads no more, and the program has not left the leadership yet."""


class Error(Exception):
    """`misc.Error` of ASP's Python modules."""

    def __init__(self, reasonStr: str, errCode: int = 0, errContext: object = None) -> None:
        super().__init__(reasonStr, errCode, errContext)
        self.reasonStr = reasonStr
        self.errCode = errCode
        self.errContext = errContext

    def __str__(self) -> str:
        return self.reasonStr


class CheckpointError(Error):
    """A call of a table failed. `code`, `errCode` and `[0]` are the code of `aspErrorCode`."""

    def __init__(self, aspErrorCode: SaAisError, text: str = "") -> None:
        super().__init__(text, aspErrorCode.code)
        self.args = (aspErrorCode, text)
        self.aspErrorCode = aspErrorCode
        """The service's error."""

        self.text = text

    @property
    def code(self) -> int:
        """The SAF code: `if error.code == SaAisErrorT.SA_AIS_ERR_EXIST:`."""
        return self.aspErrorCode.code

    @property
    def index(self) -> int:
        """The lowest element at fault, -1 for none."""
        return self.aspErrorCode.index

    def __getitem__(self, place: int) -> int:
        return self.aspErrorCode[place]

    def __str__(self) -> str:
        return f"{self.text}: Return code '{code_name(self.code)}' "


class CheckpointKeyError(CheckpointError, KeyError):
    """There is no such section: `table[key]`, `del`, `pop`, `popitem`, `touch`, `expires_in` raise this."""


class UndecodableValue(CheckpointError):
    """FAILED_OPERATION: the table's codec cannot read the value of a section.

    `key` is the section's id, `data` its content, `reason` what the codec said.
    """

    def __init__(self, aspErrorCode: SaAisError, text: str, key: bytes, data: bytes, reason: str) -> None:
        super().__init__(aspErrorCode, text)
        self.key = key
        self.data = data
        self.reason = reason


class VersionConflict(CheckpointError):
    """A condition of an update does not hold, so nothing was done, and nothing of it will be.

    `key` is the key of the first condition that does not hold, as the program wrote it. `version` is the
    version that its section has; None if there is no such section.
    """

    def __init__(
        self,
        aspErrorCode: SaAisError,
        text: str,
        key: str | bytes | bytearray | memoryview,
        version: str | None,
    ) -> None:
        super().__init__(aspErrorCode, text)
        self.key = key
        self.version = version


class LeadershipLost(CheckpointError):
    """The table leads no more, so nothing was written.

    Every write raises this until the program leaves the leadership: by the end of its block, or `resign`.
    """


def __dir__() -> list[str]:
    return sorted(__all__)
