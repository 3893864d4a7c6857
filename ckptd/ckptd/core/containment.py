"""Contains an exception that was raised before anything was changed.

Messages come from outside. If our own code raises while it parses or checks one, no state has been changed
yet: it is enough to close the connection that the message came over. Once a state has changed, the same
exception is our own fault, nothing is known about the state any more, and the node has to stop;
`stops_by_bugs` says what happens then.

So a `try` that ends here may contain only code that changes nothing.
"""

from hashlib import sha256
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.errors import FrameError, ParseFailed
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_error
from ckptd.core.client_request import Request
from ckptd.core.context import Context
from ckptd.core.events import CloseClient, ClosePeer
from ckptd.core.settings import SECOND_NS
from ckptd.core.stops_by_bugs import Stop

KIND_NAMES: Final = {number: name for name, number in vars(Kind).items() if type(number) is int}

HASH_DIGITS: Final = 16
"""Hexadecimal digits of a body's SHA-256: enough to find the message again in a recording."""

LINE_EVERY_NS: Final = SECOND_NS
"""At most one line is logged per this time: a client that can cause one exception can cause thousands."""


def describe(kind: int, body: bytes) -> str:
    """Describe a message without its payload: kind, size and hash."""
    digest = sha256(body).hexdigest()[:HASH_DIGITS]
    return f"{KIND_NAMES.get(kind, f'kind {kind}')} of {len(body)} bytes, hash {digest}"


def where(error: BaseException) -> str:
    """Return the error's type and the innermost place that raised it. (Its text may hold payload.)"""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    code = trace.tb_frame.f_code
    module = code.co_filename.rpartition("/")[2]
    return f"{type(error).__name__} in {module}:{trace.tb_lineno} ({code.co_name})"


def contain(context: Context, kind: int, body: bytes, error: Exception) -> str:
    """Count and log an exception that changed nothing; return a text that says what it was about."""
    context.count("contained")
    text = f"{describe(kind, body)} raised {where(error)}"
    if context.now_ns >= context.next_containment_log_ns:
        context.next_containment_log_ns = context.now_ns + LINE_EVERY_NS
        context.log(f"{text}; nothing was changed and the node continues. Please report this", "error")
    return text


def close_peer(context: Context, node_id: str, frame: Frame, error: FrameError) -> None:
    """Close the link to a peer that sent an invalid message, or one at which our parser raised."""
    if isinstance(error, ParseFailed):
        reason = contain(context, frame.kind, frame.body, error.raised)
    else:
        reason = f"node {node_id} sent an invalid frame: {describe(frame.kind, frame.body)}: {error}"
    context.effects.append(ClosePeer(node_id, reason))


def drop_heartbeat(context: Context, frame: Frame, error: FrameError) -> None:
    """Drop a heartbeat that is invalid, or at which our parser raised."""
    context.count("heartbeats_garbled")
    if isinstance(error, ParseFailed):
        contain(context, frame.kind, frame.body, error.raised)


def close_client(link: int, frame: Frame, error: FrameError) -> CloseClient:
    """Return the effect that closes the link of a client that sent an invalid message."""
    return CloseClient(link, f"{describe(frame.kind, frame.body)}: {error}")


def contain_client(context: Context, link: int, frame: Frame, error: Exception) -> None:
    """Close the connection of a client whose frame raised before it changed anything."""
    context.effects.append(CloseClient(link, contain(context, frame.kind, frame.body, error)))


def contain_request(context: Context, request: Request, error: Exception) -> bytes:
    """Return the answer to a request that raised while it was checked; its connection is closed next."""
    text = contain(context, request.kind, request.body, error)
    if isinstance(request.origin, int):
        context.closing[request.origin] = text
    return answer_error(codes.LIBRARY, f"the service failed on this request and did not carry it out: {text}")


def refuse_repeat(context: Context, stop: Stop) -> bytes:
    """Return the answer to a request that stopped a node: it is not tried again."""
    context.count("repeats_refused")
    text = f"this request stopped node {stop.node_id}, so it is not tried again; it may have been carried out"
    return answer_error(codes.LIBRARY, text)
