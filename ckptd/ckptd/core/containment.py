"""Contains an exception that was raised before anything was changed.

Messages come from outside. Where our own code raises while it parses or checks one, no state
was changed yet: it is enough to end the connection that the message came by. Once a state has
changed the same exception is our own fault, nobody knows what the state is worth, and the
node has to stop; `stops` says what happens then.

So only code that changes nothing may stand in a `try` that ends here.
"""

from hashlib import sha256
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.framing import Frame, FrameError
from ckpt_protocol.messages import Kind, answer_error
from ckpt_protocol.parsing import ParseFailed
from ckptd.core.client_request import Request
from ckptd.core.context import Context
from ckptd.core.events import CloseClient, ClosePeer
from ckptd.core.settings import SECOND_NS
from ckptd.core.stops import Stop

KIND_NAMES: Final = {number: name for name, number in vars(Kind).items() if type(number) is int}

HASH_DIGITS: Final = 16
"""Of a body's SHA-256, in hexadecimal: enough to find the message again in a recording."""

LINE_EVERY_NS: Final = SECOND_NS
"""A line is logged this often at most: who can cause one exception can cause thousands."""


def describe(kind: int, body: bytes) -> str:
    """A message without its payload: kind, size and hash."""
    digest = sha256(body).hexdigest()[:HASH_DIGITS]
    return f"{KIND_NAMES.get(kind, f'kind {kind}')} of {len(body)} bytes, hash {digest}"


def where(error: BaseException) -> str:
    """The error's type, and the innermost place that raised it. (Its text may hold payload.)"""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    code = trace.tb_frame.f_code
    module = code.co_filename.rpartition("/")[2]
    return f"{type(error).__name__} in {module}:{trace.tb_lineno} ({code.co_name})"


def contain(context: Context, kind: int, body: bytes, error: Exception) -> str:
    """Count and log an exception that changed nothing; the text says what it was about."""
    context.count("contained")
    text = f"{describe(kind, body)} raised {where(error)}"
    if context.now_ns >= context.contained_line_ns:
        context.contained_line_ns = context.now_ns + LINE_EVERY_NS
        context.log(f"{text}; nothing was changed, and the node goes on. Please report this", "error")
    return text


def close_peer(context: Context, node_id: str, frame: Frame, error: FrameError) -> None:
    """End the link to a peer that sent what is none of our messages, or that our parser raised at."""
    if isinstance(error, ParseFailed):
        reason = contain(context, frame.kind, frame.body, error.raised)
    else:
        reason = f"node {node_id} sent garbage: {describe(frame.kind, frame.body)}: {error}"
    context.effects.append(ClosePeer(node_id, reason))


def drop_heartbeat(context: Context, frame: Frame, error: FrameError) -> None:
    """A heartbeat that is none, or that our parser raised at: it never came."""
    context.count("heartbeats_garbled")
    if isinstance(error, ParseFailed):
        contain(context, frame.kind, frame.body, error.raised)


def close_client(link: int, frame: Frame, error: FrameError) -> CloseClient:
    """The end of the link of a client that sent what is none of our messages."""
    return CloseClient(link, f"{describe(frame.kind, frame.body)}: {error}")


def contain_client(context: Context, link: int, frame: Frame, error: Exception) -> None:
    """A client's frame raised before it changed anything: its connection ends."""
    context.effects.append(CloseClient(link, contain(context, frame.kind, frame.body, error)))


def contain_request(context: Context, request: Request, error: Exception) -> bytes:
    """A request raised while it was checked: the answer to it. Its connection ends behind that."""
    text = contain(context, request.kind, request.body, error)
    if isinstance(request.origin, int):
        context.closing[request.origin] = text
    return answer_error(codes.LIBRARY, f"the service failed at this request, and did nothing: {text}")


def refuse_repeat(context: Context, stop: Stop) -> bytes:
    """The answer to a request that stopped a node: it is not tried again."""
    context.count("repeats_refused")
    text = f"this request stopped node {stop.node_id} and is not tried again; it may have been done"
    return answer_error(codes.LIBRARY, text)
