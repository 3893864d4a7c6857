"""`ckptctl leader NAME --revoke`: an operator ends a leadership."""

import sys
from typing import Any, Final

from ckpt_client import Connection
from ckpt_client.checkpoint.leadership_state import Token
from ckpt_client.checkpoint.open_checkpoint import open_creation
from ckpt_client.errors import error_of
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.leaders import LeadershipHistory
from ckpt_client.requests.table_requests import parse_open_answer
from ckpt_client.steps import Request, drive
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ, SA_CKPT_CHECKPOINT_WRITE
from ckpt_protocol.messages import Kind, Op
from ckptctl.leader_view import show_program
from ckptctl.operator_verbs import ask_to_continue
from ckptctl.options import print_json
from ckptctl.settings import Access

_SEQ_BITS: Final = 40
_EPOCH_BITS: Final = 64


def _token(text: str) -> Token:
    """Return the token that is shown as this text."""
    number = int(text, 16)
    epoch = number >> _SEQ_BITS & (1 << _EPOCH_BITS) - 1
    return Token(number >> _SEQ_BITS + _EPOCH_BITS, epoch, number & (1 << _SEQ_BITS) - 1)


def revoke(access: Access, checkpoint: str, shown: str, history: LeadershipHistory, yes: bool) -> None:
    """Say what it costs to end the leadership that the history shows, ask, and end it.

    Raises: SaAisError NOT_EXIST if no program leads, or another one does by now.
    """
    leader = history.leader
    if leader is None:
        raise error_of(codes.NOT_EXIST, f"checkpoint {shown}: no program leads")
    first = history.waiting[:1]
    print(f"revoke at checkpoint {shown}, token {leader.token}:", file=sys.stderr)
    print(f"  {show_program(leader)} leads no more, at once:", file=sys.stderr)
    print("  its later writes are refused.", file=sys.stderr)
    print(f"  Next: {show_program(first[0]) if first else 'no program waits'}.", file=sys.stderr)
    ask_to_continue(yes)
    token, limit = _token(leader.token), TimeLimit(access.timeout, 0)
    connection = Connection(**access.client_arguments, waits=False)
    try:
        flags = SA_CKPT_CHECKPOINT_READ | SA_CKPT_CHECKPOINT_WRITE
        opening = open_creation(pack_body([checkpoint.encode(), flags, None, True]), token.creation_id)

        def carry_out(step: Request, limit: TimeLimit) -> Any:
            return connection.call(*step, limit.left_ns())

        opened = drive(opening, carry_out, limit)
        if opened is None:
            raise error_of(codes.NOT_EXIST, f"checkpoint {shown} was unlinked and created again")
        handle, _ = parse_open_answer(opened)
        body = pack_body([[Op.REVOKE, token.epoch, token.seq]])
        connection.call(Kind.UPDATE, handle, body, limit.left_ns())
    finally:
        connection.close()
    if access.as_json:
        print_json({"name": shown, "revoked": leader.token})
    else:
        print(f"{show_program(leader)} leads no more")
