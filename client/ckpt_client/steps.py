"""An operation is a generator of steps: it says what to do, and a driver does it.

The generator yields a step, a request for example. The driver carries it out and sends the answer back into
the generator, or throws the error in. What the generator returns is the operation's result. So an operation
is written once, without I/O, for programs that block and for asyncio.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

Step = TypeVar("Step")
Result = TypeVar("Result")
Context = TypeVar("Context")

Steps = Generator[Step, Any, Result]
"""An operation that yields steps of one kind and returns a result."""

Request = tuple[int, int, bytes]
"""The step "make this request of the session": kind, handle, body. Its answer is the payload.

It is a bare tuple because a class costs 0.2 µs more, in every call.
"""


def drive(steps: Steps[Step, Result], carry_out: Callable[[Step, Context], Any], context: Context) -> Result:
    """Carry out an operation's steps, one after the other; return its result, or raise its error.

    `carry_out` gets each step, and the `context`. Whatever interrupts a step is thrown in too, so that the
    operation can clean up.
    """
    try:
        step = next(steps)
        while True:
            try:
                answer = carry_out(step, context)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        result: Result = end.value
        return result


async def drive_async(
    steps: Steps[Step, Result], carry_out: Callable[[Step, Context], Awaitable[Any]], context: Context
) -> Result:
    """Do what `drive` does, and await each step. If the task is cancelled, so is the operation."""
    try:
        step = next(steps)
        while True:
            try:
                answer = await carry_out(step, context)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        result: Result = end.value
        return result
