"""The arbiter `etcd`: the register is a key in etcd, swapped only if its revision is still the expected one.

The view in the register is decided. A swap whose outcome is unknown may have been done, or may still be
done: this module does not guess, it reads the register again (R5).
"""

from typing import Final

from ckpt_protocol.body_codec import bounded_array, pack_body
from ckpt_protocol.bounds_by_kind import VIEW_BOUNDS
from ckpt_protocol.errors import FrameError
from ckptd.core.arbiter.base_arbiter import Arbiter, NextViewRule, NoView
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.context import Context
from ckptd.core.events import AskRegister
from ckptd.core.hub import VoterHub
from ckptd.core.parse_views import parse_view
from ckptd.core.view import View

ANSWER_NS: Final = 30_000_000_000
"""After this long an answer is no longer expected (the runtime's own time-out is far shorter)."""


class EtcdArbiter(Arbiter):
    """Reads the register, applies the rule, swaps."""

    has_voters = True

    def __init__(self, context: Context, store: RecordStore, hub: VoterHub) -> None:
        super().__init__(context, store, hub)
        nodes = 1 + len(context.settings.peers)
        self.quorum = nodes // 2 + 1
        self.next_view_rule: NextViewRule | None = None
        self.proposed: View | None = None
        self.number = 0
        """The number of the `AskRegister` that is not answered yet, 0 for none."""
        self._last_number = 0
        self._called_ns = context.now_ns - context.settings.register_probe_ns

    def propose(self, next_view_rule: NextViewRule) -> None:
        if self.busy or self.context.now_ns < self.not_before_ns:
            self.context.wake_at(self.not_before_ns)
            return
        self.busy = True
        self.next_view_rule = next_view_rule
        if not self.number:
            self._call(0, None)

    def _call(self, revision: int, view: View | None) -> None:
        self.proposed = view
        self._last_number += 1
        self.number = self._last_number
        self._called_ns = self.context.now_ns
        value = pack_body([view.fields()]) if view is not None else None
        self.context.effects.append(AskRegister(self.number, revision, value))

    def on_answered(self, number: int, swapped: bool, revision: int, value: bytes | None) -> None:
        """Take the register's answer to a read or a swap."""
        if number != self.number:
            return
        self.number = 0
        self.context.clear_alarm("arbiter")
        if swapped:
            assert self.proposed is not None, number
            self.failures = 0
            self._adopt(self.proposed)
            return
        try:
            stored = parse_view(bounded_array(value, VIEW_BOUNDS, 1)[0]) if value is not None else None
        except FrameError as error:
            self.context.raise_alarm("arbiter", f"what the register holds is not a view: {error}")
            self._fail()
            return
        if stored is not None and (stored.epoch > self.store.epoch or self.store.record.view is None):
            self._adopt(stored)  # Another node decided it, or we did and the answer was lost.
            return
        next_view_rule, lost = self.next_view_rule, self.proposed is not None
        if next_view_rule is None or lost:
            if lost:
                self._fail()
            return
        proposed = next_view_rule(stored)
        if isinstance(proposed, NoView):
            self._fail()
        elif proposed is stored:
            self._adopt(proposed)
        else:
            self._call(revision, proposed)

    def _adopt(self, view: View) -> None:
        """Report the view in the register as decided."""
        self.busy = False
        self.next_view_rule = self.proposed = None
        self.on_decided_elsewhere(view)
        self.hub.on_decided(view)

    def on_failed(self, number: int, text: str) -> None:
        """Note that the register did not answer: the outcome is unknown."""
        if number != self.number:
            return
        self.number = 0
        self.context.raise_alarm(
            "arbiter", f"the register does not answer, so the view cannot change: {text}"
        )
        self._fail()

    def _fail(self) -> None:
        self.busy = False
        self.next_view_rule = self.proposed = None
        names = (self.context.node_id, *self.context.settings.peers)
        self.back_off(sorted(names).index(self.context.node_id) + 1, len(names), self._last_number)

    def on_decided_elsewhere(self, view: View) -> None:
        if view.epoch > self.store.epoch:
            self.store.record.view = view
            self.store.persist()

    def update_alarm(self, reachable: int) -> None:
        context = self.context
        if self.number and context.now_ns - self._called_ns >= ANSWER_NS:
            self.on_failed(self.number, "no answer")
        elif not self.number and context.now_ns - self._called_ns >= context.settings.register_probe_ns:
            self._call(0, None)
