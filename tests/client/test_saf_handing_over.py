"""A call that is interrupted in the moment in which it was handed to the service's thread."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.client.fixtures import Start, start
from tests.client.saf_fake import (
    NAME,
    READ,
    Initialize,
    initialize,
    nothing_left,
    opened,
    other_tasks,
    service,
    unanswered,
    until,
)
from tests.client.test_interruptions import Interrupted

from ckpt_client.io.loop_thread import shared_runner
from ckpt_protocol.messages import Kind

__all__ = ["initialize", "nothing_left", "service", "start"]

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_left")]


@pytest.mark.parametrize("kind", [Kind.READ, Kind.OPEN])
def test_a_call_interrupted_after_it_was_handed_over_is_cancelled(
    kind: int, start: Start, initialize: Initialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other threads run at once, so that this is where a signal finds it as often as not."""
    node = start()
    library = initialize(node)
    checkpoint = opened(library)
    node.misbehave = unanswered(kind)
    loop = shared_runner()._loop
    hand_over, first = loop.call_soon_threadsafe, [True]

    def interrupted(callback: Callable[..., object], *given: Any, **named: Any) -> Any:
        handed = hand_over(callback, *given, **named)
        if first.pop() if first else False:
            raise Interrupted
        return handed

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(Interrupted):
        if kind == Kind.READ:
            checkpoint.read([("k", 1, 0)])
        else:
            library.checkpoint_open(NAME, READ)
    monkeypatch.undo()
    until(lambda: not shared_runner().call(other_tasks), "its task goes on")
    calls = library.inner.connection._session.calls
    until(lambda: all(call.orphan for call in list(calls.values())), "it is waited for")
