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
                CheckpointKeyError   also a KeyError: table[key] and del table[key] of a missing key
                VersionConflict      a condition of an update does not hold: .key .version
                LeadershipLost       ACCESS: the table leads no more, so it does not write

In both families `e[0]` is the code, as programs written for Python 2 expect.
"""

from typing import TYPE_CHECKING, Any, Final

from ckpt_protocol import codes
from ckpt_protocol.codes import SaAisErrorT, code_name


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

        self.detail: Any = None
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


def _class_name(code: SaAisErrorT) -> str:
    words = code.name.removeprefix("SA_AIS_").split("_")
    return "SaAis" + "".join(word.capitalize() for word in words)


ERROR_CLASSES: Final[dict[int, type[SaAisError]]] = {
    code: type(
        _class_name(code), (SaAisError,), {"__doc__": f"{code.name} ({code.value}).", "__module__": __name__}
    )
    for code in SaAisErrorT
    if code != codes.OK
}
"""The subclass of each code."""

globals().update({generated.__name__: generated for generated in ERROR_CLASSES.values()})


def __getattr__(name: str) -> type[SaAisError]:
    """Tell type checkers that the generated classes exist; at run time only missing names arrive here."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def error_of(code: int, text: str = "", index: int = -1, detail: Any = None) -> SaAisError:
    """Return the error of a code as an instance of its own class; an unknown code becomes LIBRARY."""
    if code in ERROR_CLASSES:
        error = ERROR_CLASSES[code](code, text, index)
        error.detail = detail
        return error
    return ERROR_CLASSES[codes.LIBRARY](
        codes.LIBRARY, f"the daemon answered with code {code} ({text})", index
    )


if TYPE_CHECKING:
    _NotExist = SaAisError
    _Access = SaAisError
else:
    _NotExist = ERROR_CLASSES[codes.NOT_EXIST]
    _Access = ERROR_CLASSES[codes.ACCESS]


class CheckpointEnded(_NotExist):
    """NOT_EXIST: the checkpoint ended while the table had no session.

    The table's next call opens it as the constructor did.
    """


class LeadershipEnded(_Access):
    """ACCESS: the handle leads no more, and the program has not left the leadership yet."""


class Error(Exception):
    """`misc.Error` of ASP's Python modules."""

    def __init__(self, reasonStr: str, errCode: int = 0, errContext: Any = None) -> None:
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
        """The SAF code."""
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
    """`table[key]` or `del table[key]`: there is no such section."""


class VersionConflict(CheckpointError):
    """A condition of an update does not hold, so nothing was done, and nothing of it will be.

    `key` is the key of the first condition that does not hold, as the program wrote it. `version` is the
    version that its section has; None if there is no such section.
    """

    def __init__(self, aspErrorCode: SaAisError, text: str, key: Any, version: str | None) -> None:
        super().__init__(aspErrorCode, text)
        self.key = key
        self.version = version


class LeadershipLost(CheckpointError):
    """The table leads no more, so nothing was written.

    Every write raises this until the program leaves the leadership: by the end of its block, or `resign`.
    """
