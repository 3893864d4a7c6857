"""The bodies of answers, checked: what a client takes from a node, one function for each kind of request.

All raise FrameError: an answer that makes no sense says that the other end is no node, or not of our version.
"""

from typing import Any, Final

from ckpt_protocol.bounds import BOUNDS
from ckpt_protocol.codec import bounded_array, unpack_flat
from ckpt_protocol.codes import OK
from ckpt_protocol.fields import whole
from ckpt_protocol.messages import Kind, answer_ok

_OK_BODY: Final = answer_ok()


def decode_answer(body: bytes) -> tuple[int, Any, int, str]:
    """(code, payload, index, text) of an answer's body. The payload is within its bounds, and not checked.

    Raises: FrameError.
    """
    if body == _OK_BODY:
        return OK, None, -1, ""
    fields = unpack_flat(body)
    if fields is None or len(fields) != 2 or type(fields[0]) is not int or fields[0] != OK:
        fields = bounded_array(body, BOUNDS[Kind.ANSWER], 1)
    code = whole(fields[0], "an answer's code", 2**31)
    if code == OK:
        return code, fields[1] if len(fields) > 1 else None, -1, ""
    index = fields[1] if len(fields) > 1 and type(fields[1]) is int else -1
    text = fields[2] if len(fields) > 2 and type(fields[2]) is str else ""
    return code, None, index, text
