"""The views that an operator has a node decide, past the arbiter: `bootstrap` and `force-active`.

Such a view outranks all others, and what they acknowledged goes to quarantine. Both commands are therefore
refused where nothing has to be forced. They take effect when the view is on this node's disk, which may be
slow or full. If anything was decided meanwhile, or the command would be refused by then, it is void.
"""

from collections.abc import Callable
from dataclasses import replace

from ckpt_protocol import codes
from ckpt_protocol.errors import RequestError
from ckpt_protocol.limits import EPOCH_MAX
from ckptd.core.context import Context
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.membership.pair_policy import epoch_of_command
from ckptd.core.membership.reconfiguration import Reconfiguration
from ckptd.core.view import EPOCH_JUMP_DATA_LOSS, View, bootstrap_view, successor_view

Outcome = Callable[[str | RequestError], None]
"""Takes what was done and can be lost, or why nothing was done."""


class ForcedViews:
    """Has views decided that the operator asks for, at most one at a time."""

    def __init__(self, context: Context, liveness: Liveness, reconfiguration: Reconfiguration) -> None:
        self.context = context
        self.liveness = liveness
        self.reconfiguration = reconfiguration

    def bootstrap(self, outcome: Outcome) -> None:
        """Make a cold start with the nodes that are here. Raises: RequestError."""
        view = self._bootstrapped()
        text = (
            f"epoch {view.epoch} bootstraps a new history with {', '.join(view.members)}; the data "
            "that missing nodes have is lost, and goes to quarantine when they come back"
        )
        self._force(view, self._bootstrapped, [], text, outcome)

    def force_active(self, outcome: Outcome) -> None:
        """Continue with the members that are heard, whatever the arbiter says. Raises: RequestError."""
        view, base = self._continued(), self.reconfiguration.decided
        left = [node_id for node_id in base.members if node_id not in view.members] if base else []
        text = (
            f"epoch {view.epoch} continues with {', '.join(view.members)}, without "
            f"{', '.join(left) or 'anybody else'}; if the others still serve, both sides write, and "
            "what one side acknowledges goes to quarantine when they meet again"
        )
        self._force(view, self._continued, left, text, outcome)

    def _force(
        self, view: View, derive: Callable[[], View], left: list[str], text: str, outcome: Outcome
    ) -> None:
        store, arbiter = self.reconfiguration.store, self.reconfiguration.arbiter
        if store.failing:
            raise RequestError(codes.NO_RESOURCES, self.context.alarms["disk"])

        def objection() -> str:
            try:
                return (
                    ""
                    if derive() == view
                    else "this node receives heartbeats from other nodes by now: give the command again"
                )
            except RequestError as refusal:
                return refusal.text

        def on_decided(view: View) -> None:
            for node_id in left:
                self.reconfiguration.declare_dead(node_id)
            self.reconfiguration.on_decided(view)
            outcome(text)

        def on_discarded(reason: str) -> None:
            if store.failing:  # It may stay so for long, and the operator has to know.
                why = (
                    f"no view was decided: {reason}. (If this node restarts before its disk works, the view "
                    "may still be decided.)"
                )
                outcome(RequestError(codes.NO_RESOURCES, why))
            else:
                refusal = RequestError(codes.BAD_OPERATION, f"no view was decided: {reason}")
                store.when_durable(lambda: outcome(refusal))

        arbiter.force(view, objection, on_decided, on_discarded)

    def _bootstrapped(self) -> View:
        """Return the view of a cold start with the nodes that are here. Raises: RequestError."""
        context, reconfiguration = self.context, self.reconfiguration
        self._check_blocked()
        if reconfiguration.view is not None:
            raise RequestError(
                codes.BAD_OPERATION, "this node has the data of a view, which bootstrap would lose"
            )
        next_members = reconfiguration.next_members
        members = next_members.with_joiners(
            {context.node_id: context.incarnation}, [], reconfiguration.decided
        )
        holder = self._find_data_holder()
        if holder:
            text = (
                f"member {holder} has data and sends heartbeats: bootstrap would lose its data, "
                "force-active on that node does not"
            )
            raise RequestError(codes.BAD_OPERATION, text)
        epoch = self._epoch(reconfiguration.decided)
        view = bootstrap_view(epoch, members, next_members.reachable_witnesses())
        return replace(next_members.at_common_level(view, reconfiguration.decided), operator_forced=True)

    def _find_data_holder(self) -> str:
        """Return another member that is heard and holds its view's data; "" for none."""
        heard = self.liveness.detector.heard_peers()
        holders = (peer.node_id for peer in heard if peer.holds_data and peer.member and not peer.is_witness)
        return next(holders, "")

    def _continued(self) -> View:
        """Return the view to follow with the members that are heard. Raises: RequestError."""
        context, reconfiguration = self.context, self.reconfiguration
        self._check_blocked()
        base = reconfiguration.decided
        if (
            reconfiguration.view is None
            or base is None
            or not base.includes(context.node_id, context.incarnation)
        ):
            raise RequestError(
                codes.BAD_OPERATION, "this node is not a member, or has no data to continue with"
            )
        next_members = reconfiguration.next_members
        proposed = next_members.proposed_members(base)
        view = successor_view(
            base, self._epoch(base), proposed, next_members.reachable_witnesses(), context.epoch
        )
        return replace(next_members.at_common_level(view, base), operator_forced=True)

    def _check_blocked(self) -> None:
        if self.reconfiguration.is_stable and self.context.serving():
            raise RequestError(codes.BAD_OPERATION, "the cluster serves, so there is nothing to force")
        if self.liveness.own.leaving:
            raise RequestError(codes.BAD_OPERATION, "this node is leaving")

    def _epoch(self, current: View | None) -> int:
        epoch = epoch_of_command(self.context.settings, self.reconfiguration.last_epoch(current))
        if epoch + EPOCH_JUMP_DATA_LOSS > EPOCH_MAX:
            raise RequestError(
                codes.NO_RESOURCES, f"the largest epoch is {EPOCH_MAX}: no epoch is left for this command"
            )
        return epoch
