"""Parsers change nothing, so whatever one raises ends no more than where its bytes came from."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from ckpt_protocol.framing import FrameError
from ckpt_protocol.refusal import Refusal

_Arguments = ParamSpec("_Arguments")
_Parsed = TypeVar("_Parsed")


class ParseFailed(FrameError):
    """Our own parser raised something else than FrameError or Refusal (`raised`): a bug, and no harm done."""

    def __init__(self, raised: Exception) -> None:
        super().__init__(f"our own parser raised {type(raised).__name__}")
        self.raised = raised


def parser(function: Callable[_Arguments, _Parsed]) -> Callable[_Arguments, _Parsed]:
    """Mark a function that only parses: it must change nothing but what it returns."""

    @wraps(function)
    def parse(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Parsed:
        try:
            return function(*arguments, **named)
        except (FrameError, Refusal):
            raise
        except Exception as error:
            raise ParseFailed(error) from error

    return parse
