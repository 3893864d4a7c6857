"""What a `pair` does when one of its nodes is silent: the setting `on_silent_peer`.

* `keep-active`: the coordinator continues alone; the other node waits for proof that it is dead.
* `block`: neither node continues without proof.
* `fence`: as `keep-active`, and the other node has the coordinator's host fenced.
* `promote`: the other node continues after its grace, without proof.

Silence proves nothing. A coordinator that is cut off may have continued alone, and the other node does not
have what it acknowledged then. A node that continues without proof accepts that loss, and reports it (R1).
"""

from typing import Final

from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.context import Context
from ckptd.core.events import Fence
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.settings import Settings
from ckptd.core.view import EPOCH_JUMP_DATA_LOSS, View

EPOCH_JUMP_TAKEOVER: Final = 100
"""How far the epoch rises when the coordinator is proved dead.

The coordinator may have decided to continue alone just before it died. Before it can serve alone a lease
has to end, and in that time it decides at most one view per heartbeat.
"""

FENCE_AGAIN_NS: Final = 5_000_000_000
"""How long after a fence hook was started it may be run again, in case it failed."""


def epoch_of_command(settings: Settings, last_epoch: int) -> int:
    """Return the epoch in which this node continues after an operator command or a promotion.

    `last_epoch` is the newest epoch that this node knows of. No other node's command gives the same epoch,
    nor one of the next `EPOCH_JUMP_DATA_LOSS`. Two nodes that were bootstrapped, or forced, while they were
    cut off from each other once both began with epoch 1000. When they met, each mistook the other's view, and
    checkpoints with the same number, for its own.
    """
    voters = settings.voters
    first_epoch, step = (
        voters.index(settings.node_id) * EPOCH_JUMP_DATA_LOSS,
        len(voters) * EPOCH_JUMP_DATA_LOSS,
    )
    least = last_epoch + 1 + EPOCH_JUMP_DATA_LOSS
    return least + (first_epoch - least) % step


class PairPolicy:
    """Decides whether this node may propose the view that follows; `waiting_for` says why not."""

    def __init__(self, context: Context, liveness: Liveness, store: RecordStore) -> None:
        self.context = context
        self.liveness = liveness
        self.store = store
        self.policy = context.settings.on_silent_peer
        self.waiting_for = ""
        self.fence_again_ns = 0

    def may_succeed(self, current: View, proposed: dict[str, int]) -> bool:
        """Return True if a view without the silent node may follow `current`."""
        if current.coordinator == self.context.node_id:
            return self._may_continue(current, proposed)
        return self._may_take_over(current)

    def next_epoch(self, current: View, last_epoch: int) -> int:
        """Return the next view's epoch: above all that the lost coordinator may have decided alone."""
        coordinator = current.coordinator
        left = self.liveness.deaths.has_left_cleanly(
            coordinator, current.members[coordinator].incarnation, current.epoch
        )
        if coordinator == self.context.node_id or left:
            return last_epoch + 1
        if self.accepts_data_loss(current):
            return epoch_of_command(self.context.settings, last_epoch)
        return last_epoch + 1 + EPOCH_JUMP_TAKEOVER

    def accepts_data_loss(self, current: View) -> bool:
        """Return True if continuing abandons what the coordinator may have acknowledged alone."""
        coordinator = current.coordinator
        return coordinator != self.context.node_id and not self._coordinator_lost_nothing(
            current, coordinator
        )

    def _may_continue(self, current: View, proposed: dict[str, int]) -> bool:
        """Return True if this coordinator may continue: always, except under `block` without proof."""
        if self.policy != "block":
            return True
        for node_id, member in current.members.items():
            if proposed.get(node_id) == member.incarnation or self._has_ended(current, node_id):
                continue
            self.waiting_for = f"proof that node {node_id} is dead, or its return (on_silent_peer is block)"
            return False
        return True

    def _has_ended(self, current: View, node_id: str) -> bool:
        incarnation = current.members[node_id].incarnation
        return self.liveness.deaths.has_left_cleanly(node_id, incarnation, current.epoch) or (
            self.liveness.deaths.counts_as_dead(node_id, incarnation)
        )

    def _may_take_over(self, current: View) -> bool:
        coordinator = current.coordinator
        incarnation = current.members[coordinator].incarnation
        if (
            self._coordinator_lost_nothing(current, coordinator)
            or incarnation <= self.liveness.peers[coordinator].declared_dead_incarnation
        ):
            return True
        if not self.liveness.detector.alive(coordinator, incarnation):
            if self.policy == "promote" and not self.liveness.deaths.proved_dead(coordinator, incarnation):
                return True
            if self.policy == "fence":
                self._fence(coordinator)
        self.waiting_for = f"proof that coordinator {coordinator} is dead, or its return"
        if self.liveness.deaths.proved_dead(coordinator, incarnation):
            self.waiting_for = (
                f"the operator: coordinator {coordinator} is dead, and may have served alone before it "
                "died (ckptctl cluster force-active continues with the data of this node)"
            )
        return False

    def _coordinator_lost_nothing(self, current: View, coordinator: str) -> bool:
        """Return True if the coordinator cannot have served anything that this node lacks."""
        liveness = self.liveness
        incarnation = current.members[coordinator].incarnation
        if liveness.deaths.has_left_cleanly(coordinator, incarnation, current.epoch):
            return True
        if not liveness.deaths.proved_dead(coordinator, incarnation):
            return False
        peer = liveness.peers[coordinator]
        if peer.lease_fresh_at_death == (incarnation, current.epoch) or not self.context.epoch:
            return True  # (A node that never served has no older data that could replace newer data.)
        # Otherwise the coordinator's disk tells, if it has restarted and its disk was not lost.
        restarted = peer.incarnation > incarnation and liveness.detector.recently_heard(peer)
        return restarted and not peer.amnesiac and peer.disk_epoch <= self.store.epoch

    # -- fencing

    def _fence(self, coordinator: str) -> None:
        context = self.context
        if context.now_ns < self.fence_again_ns:
            context.wake_at(self.fence_again_ns)
            return
        self.fence_again_ns = context.now_ns + FENCE_AGAIN_NS
        context.log(f"no heartbeat from coordinator {coordinator}: running its fence hook", "warning")
        context.effects.append(Fence(coordinator))

    def on_fenced(self, node_id: str, fenced: bool, text: str) -> None:
        """Take the result of the fence hook; declare the node dead if it was fenced.

        A result that comes too late has no effect: the node has been heard again.
        """
        peer = self.liveness.peers.get(node_id)
        if peer is None:
            return
        if not fenced:
            self.context.log(f"node {node_id} could not be fenced: {text}", "warning")
            return
        self.fence_again_ns = 0
        self.context.count("fenced")
        self.context.log(f"node {node_id} was fenced: {text}", "warning")
        if not self.liveness.detector.recently_heard(peer):
            self.context.count("losses_accepted")
            self.liveness.deaths.declare_dead(node_id, peer.incarnation)
