"""Marks the parsers: functions that change nothing.

So an exception in a parser, whatever it is, ends no more than the connection that the bytes came from.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from ckpt_protocol.framing import FrameError
from ckpt_protocol.refusal import RequestError

_Arguments = ParamSpec("_Arguments")
_Parsed = TypeVar("_Parsed")


class ParseFailed(FrameError):
    """Our own parser raised something other than FrameError or RequestError (`raised`).

    That is a bug, but it did no harm.
    """

    def __init__(self, raised: Exception) -> None:
        super().__init__(f"our own parser raised {type(raised).__name__}")
        self.raised = raised


def parser(function: Callable[_Arguments, _Parsed]) -> Callable[_Arguments, _Parsed]:
    """Mark a function that only parses. It must change nothing but what it returns."""

    @wraps(function)
    def parse(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Parsed:
        try:
            return function(*arguments, **named)
        except (FrameError, RequestError):
            raise
        except Exception as error:
            raise ParseFailed(error) from error

    return parse
