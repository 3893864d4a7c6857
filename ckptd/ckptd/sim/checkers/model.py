"""A simple model of a checkpoint: how a call must be answered in a given state, and the state after it.

The model shares nothing with the core, so that it does not repeat the core's mistakes. A state is a sorted
tuple of (id, value); the value CORRUPTED cannot be read.
"""

from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.messages import Op
from ckptd.sim.checkers.history import Call, Operation, Outcome

CORRUPTED: Final = None

ELSEWHERE: Final = -2
"""The index of a refusal that concerns other sections of a call. It says nothing about this one."""

State = tuple[tuple[bytes, bytes | None], ...]


def initial_state(single: bool) -> State:
    """Return the state of a new checkpoint: empty, or with its default section if it holds only one."""
    return ((b"", b""),) if single else ()


def state_after(call: Call, state: State) -> State | None:
    """Return the state after `call`; None if `call` cannot have got its answer in `state`.

    A call with an unknown outcome fits everywhere.
    """
    if call.operation == Operation.READ:
        return state if _read_fits(call, dict(state)) else None
    if call.operation == Operation.ITERATE:
        return state if call.outcome != Outcome.OK or call.result == dict(state) else None
    if call.outcome == Outcome.NOT_DONE or call.index == ELSEWHERE:
        return state
    sections = dict(state)
    for index, op in enumerate(call.arguments):
        code = _change(sections, op)
        if code != codes.OK:
            refused = call.outcome == Outcome.REFUSED and (call.code, call.index) == (code, index)
            return state if refused or _unknown(call) else None
    if call.outcome == Outcome.REFUSED:
        return None
    return tuple(sorted(sections.items()))


def observes(call: Call) -> bool:
    """Return True if the call certainly changes nothing."""
    return call.operation != Operation.UPDATE or call.outcome in (Outcome.REFUSED, Outcome.NOT_DONE)


def _unknown(call: Call) -> bool:
    return call.outcome in (Outcome.PENDING, Outcome.UNKNOWN)


def _read_fits(call: Call, sections: dict[bytes, bytes | None]) -> bool:
    if _unknown(call):
        return True
    for index, section_id in enumerate(call.arguments):
        if section_id not in sections:
            return (call.outcome, call.code, call.index) == (Outcome.REFUSED, codes.NOT_EXIST, index)
        if sections[section_id] is CORRUPTED:
            return (call.outcome, call.code, call.index) == (Outcome.REFUSED, codes.FAILED_OPERATION, index)
    return call.outcome == Outcome.OK and call.result == [
        sections[section_id] for section_id in call.arguments
    ]


def _change(sections: dict[bytes, bytes | None], op: list[Any]) -> int:
    section_id = op[1]
    there = section_id in sections
    match op[0]:
        case Op.CREATE:
            if there:
                return codes.EXIST
            sections[section_id] = op[3]
        case Op.DELETE:
            if not there:
                return codes.NOT_EXIST
            del sections[section_id]
        case Op.OVERWRITE:
            if not there:
                return codes.NOT_EXIST
            sections[section_id] = op[2]
        case Op.REQUIRE:
            wanted = op[2]
            found = sections.get(section_id)
            if there != (wanted is not None) or (type(wanted) is bytes and found != wanted):
                return codes.BAD_OPERATION
        case Op.PUT:
            sections[section_id] = op[2]
        case Op.WRITE | Op.PATCH:
            if not there and op[0] == Op.WRITE:
                return codes.NOT_EXIST
            content = sections.get(section_id, b"")
            if content is CORRUPTED:
                return codes.FAILED_OPERATION
            offset, written = op[2], op[3]
            if written:
                content = content.ljust(offset, b"\0")
                content = content[:offset] + written + content[offset + len(written) :]
            sections[section_id] = content
        case _:
            raise AssertionError(f"the model does not know operation {op[0]}")
    return codes.OK
