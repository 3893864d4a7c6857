"""Operator commands: what OPERATE asks of this node, each with what it can lose."""

from functools import partial

from ckpt_protocol import codes
from ckpt_protocol.errors import RequestError
from ckpt_protocol.messages import Verb, answer_error, answer_ok, encode_answer
from ckpt_protocol.parse_requests import Operate
from ckptd.core.context import Context
from ckptd.core.hub import Hub
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.membership.reconfiguration import Reconfiguration
from ckptd.core.operations.forced_views import ForcedViews


class OperatorCommands:
    """Carries out the operator commands."""

    def __init__(
        self,
        context: Context,
        liveness: Liveness,
        reconfiguration: Reconfiguration,
        hub: Hub,
    ) -> None:
        self.context = context
        self.liveness = liveness
        self.reconfiguration = reconfiguration
        self.forced_views = ForcedViews(context, liveness, reconfiguration)
        self.hub = hub
        self.waiting_drains: list[tuple[int, int]] = []
        """Links and request numbers of those who wait until this node has handed over."""

    def operate(self, link: int, number: int, operate: Operate) -> None:
        """Do what an operator asks, or answer why not."""
        outcome = partial(self._end, link, number, operate.verb)
        try:
            match operate.verb:
                case Verb.DRAIN:
                    self.waiting_drains.append((link, number))
                    self.hub.leave()
                    return
                case Verb.STOP:
                    self.waiting_drains.append((link, number))
                    self.hub.stop_all()
                    return
                case Verb.BOOTSTRAP:
                    self.forced_views.bootstrap(outcome)
                case Verb.FORCE_ACTIVE:
                    self.forced_views.force_active(outcome)
                case Verb.RETRY:
                    outcome(self.hub.retry_checkpoint(operate.name))
                case _:
                    outcome(self._accept_loss(operate.name))
        except RequestError as refusal:
            outcome(refusal)

    def _end(self, link: int, number: int, verb: str, outcome: str | RequestError) -> None:
        """Answer a command that was carried out or refused."""
        if isinstance(outcome, RequestError):
            self._answer(link, number, answer_error(outcome.code, outcome.text))
            return
        if verb != Verb.RETRY:
            self.context.count("losses_accepted")
        self.context.log(f"operator command {verb}: {outcome}", "warning")
        self._answer(link, number, answer_ok(outcome))

    def _answer(self, link: int, number: int, body: bytes) -> None:
        self.context.send_client(link, encode_answer(number, self.context.epoch, 0, body))

    def _accept_loss(self, node_id: str) -> str:
        """Take a silent node for dead: neither views nor checkpoints wait for it any more.

        Raises: RequestError.
        """
        peer = self.liveness.peers.get(node_id)
        if peer is None:
            raise RequestError(codes.NOT_EXIST, f"{node_id!r} is not another node of this cluster")
        if self.liveness.detector.recently_heard(peer):
            raise RequestError(
                codes.BAD_OPERATION, f"this node receives heartbeats from node {node_id}: it is not lost"
            )
        self.reconfiguration.declare_dead(node_id)
        return (
            f"node {node_id} counts as dead: what only it acknowledged is lost, and goes to "
            "quarantine if it comes back"
        )

    def answer_drained(self, text: str) -> None:
        """Answer the operators who wait: this node ends. `text` says what that costs."""
        for link, number in self.waiting_drains:
            self._answer(link, number, answer_ok(text))
        self.waiting_drains.clear()
