"""What a message from outside may raise: it is no valid frame, or its request is refused.

`parser` marks the functions that parse, and lets nothing else out of them.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Parsed = TypeVar("_Parsed")


class FrameError(Exception):
    """The peer sent something that is not a frame. Its connection ends, and no other is affected."""


class BodyTooLong(FrameError):
    """A frame announces a longer body than its kind may have from this sender at this moment."""


class RequestError(Exception):
    """The request was refused and nothing was done: the caller made a mistake, or the state forbids it.

    `code` is the SAF code; `index` the lowest element at fault, -1 for none.
    """

    def __init__(self, code: int, text: str = "", index: int = -1) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.index = index


class ParseFailed(FrameError):
    """Our own parser raised something other than FrameError or RequestError (`raised`).

    That is a bug, but it did no harm.
    """

    def __init__(self, raised: Exception) -> None:
        super().__init__(f"our own parser raised {type(raised).__name__}")
        self.raised = raised


def parser(function: Callable[_Arguments, _Parsed]) -> Callable[_Arguments, _Parsed]:
    """Mark a function that only parses. It must change nothing but what it returns.

    So an exception in it, whatever it is, ends no more than the connection that the bytes came from.
    """

    @wraps(function)
    def parse(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Parsed:
        try:
            return function(*arguments, **named)
        except (FrameError, RequestError):
            raise
        except Exception as error:
            raise ParseFailed(error) from error

    return parse
