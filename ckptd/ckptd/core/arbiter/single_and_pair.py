"""The arbiter for `single` and `pair`: the register is on the node's own disk.

A node that may propose (the rule knows) decides alone, and writes the view to its own disk first. What a pair
does when one of its nodes is silent is not the arbiter's business: see `membership.pair_policy`.
"""

from ckptd.core.arbiter.base_arbiter import Arbiter, NextViewRule, NoView
from ckptd.core.arbiter.wait_for_disk import PendingView
from ckptd.core.view import View


class LocalArbiter(Arbiter):
    """The register on a node's own disk."""

    def propose(self, next_view_rule: NextViewRule) -> None:
        if self.store.failing:
            return
        view = next_view_rule(self.store.record.view)
        if isinstance(view, NoView):
            return
        self.busy = True
        self.store.decide(
            PendingView(
                view,
                None,
                lambda: self._objection(next_view_rule, view),
                self._on_decided,
                self._on_discarded,
            )
        )

    def _objection(self, next_view_rule: NextViewRule, view: View) -> str:
        """Return why a view must not take effect any more, although it is on the disk now; "" if it may.

        The reason for the decision may have passed: heartbeats arrive again from a node that was declared
        dead, and it has continued.
        """
        return (
            ""
            if next_view_rule(self.store.record.view) == view
            else "the view has changed in the meantime, so a different view must follow"
        )

    def _on_decided(self, view: View) -> None:
        self.busy = False
        self.hub.on_decided(view)

    def _on_discarded(self, reason: str) -> None:
        self.busy = False

    def on_decided_elsewhere(self, view: View) -> None:
        if view.epoch > self.store.epoch:
            self.store.record.view = view
            self.store.persist()
