"""The arbiter `etcd`: the register is a key in etcd, swapped only if its revision is still the expected one.

The view in the register is decided. A swap whose outcome is unknown may have been done, or may still be
done: this module does not guess, it reads the register again (R5).
"""

from typing import Final

from ckpt_protocol.bounds import VIEW_BOUNDS
from ckpt_protocol.codec import bounded_array, pack_body
from ckpt_protocol.framing import FrameError
from ckptd.core.arbiter.durable_state import Disk
from ckptd.core.arbiter.local import Arbiter, Rule
from ckptd.core.context import Context
from ckptd.core.events import AskRegister
from ckptd.core.hub import VoterHub
from ckptd.core.parse_views import parse_view
from ckptd.core.view import View

ANSWER_NS: Final = 30_000_000_000
"""After this long an answer is no longer expected (the runtime's own time-out is far shorter)."""


class EtcdArbiter(Arbiter):
    """Reads the register, applies the rule, swaps."""

    votes = True

    def __init__(self, context: Context, disk: Disk, hub: VoterHub) -> None:
        super().__init__(context, disk, hub)
        nodes = 1 + len(context.settings.peers)
        self.quorum = nodes // 2 + 1
        self.rule: Rule | None = None
        self.proposal: View | None = None
        self.number = 0
        """The number of the `AskRegister` that is not answered yet, 0 for none."""
        self._last_number = 0
        self._asked_ns = context.now_ns - context.settings.register_probe_ns

    def propose(self, rule: Rule) -> None:
        if self.busy or self.context.now_ns < self.not_before_ns:
            self.context.wake_at(self.not_before_ns)
            return
        self.busy = True
        self.rule = rule
        if not self.number:
            self._ask(0, None)

    def _ask(self, revision: int, view: View | None) -> None:
        self.proposal = view
        self._last_number += 1
        self.number = self._last_number
        self._asked_ns = self.context.now_ns
        value = pack_body([view.fields()]) if view is not None else None
        self.context.effects.append(AskRegister(self.number, revision, value))

    def on_answered(self, number: int, swapped: bool, revision: int, value: bytes | None) -> None:
        """Take the register's answer to a read or a swap."""
        if number != self.number:
            return
        self.number = 0
        self.context.clear_alarm("arbiter")
        if swapped:
            assert self.proposal is not None, number
            self.failures = 0
            self._settle(self.proposal)
            return
        try:
            held = parse_view(bounded_array(value, VIEW_BOUNDS, 1)[0]) if value is not None else None
        except FrameError as error:
            self.context.raise_alarm("arbiter", f"the register holds no view: {error}")
            self._fail()
            return
        if held is not None and (held.epoch > self.disk.epoch or self.disk.record.view is None):
            self._settle(held)  # Another node decided it, or we did and the answer was lost.
            return
        rule, lost = self.rule, self.proposal is not None
        if rule is None or lost:
            if lost:
                self._fail()
            return
        proposal = rule(held)
        if proposal is None:
            self._fail()
        elif proposal is held:
            self._settle(proposal)
        else:
            self._ask(revision, proposal)

    def _settle(self, view: View) -> None:
        """Report the view in the register as decided."""
        self.busy = False
        self.rule = self.proposal = None
        self.note(view)
        self.hub.on_decided(view)

    def on_failed(self, number: int, text: str) -> None:
        """Note that the register did not answer: the outcome is unknown."""
        if number != self.number:
            return
        self.number = 0
        self.context.raise_alarm("arbiter", f"the register does not answer, no view can be changed: {text}")
        self._fail()

    def _fail(self) -> None:
        self.busy = False
        self.rule = self.proposal = None
        names = (self.context.node_id, *self.context.settings.peers)
        self.back_off(sorted(names).index(self.context.node_id) + 1, len(names), self._last_number)

    def note(self, view: View) -> None:
        if view.epoch > self.disk.epoch:
            self.disk.record.view = view
            self.disk.save()

    def watch(self, reachable: int) -> None:
        context = self.context
        if self.number and context.now_ns - self._asked_ns >= ANSWER_NS:
            self.on_failed(self.number, "no answer")
        elif not self.number and context.now_ns - self._asked_ns >= context.settings.register_probe_ns:
            self._ask(0, None)
