"""One simulated client at work: what it does next, and when."""

from typing import Any, Final

from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END
from ckpt_protocol.messages import Kind, Op
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers.checkers import EXPIRING_ID
from ckptd.sim.clients.client_driver import ClientDriver
from ckptd.sim.clients.client_handle import ClientHandle
from ckptd.sim.clients.sim_client import SimClient
from ckptd.sim.clients.workload import Workload

NAP: Final = 0.03
"""How often an idle client begins a pause, in simulations that have pauses."""

GENERATED_MAX: Final = 6
"""How many sections with generated ids one client creates in one checkpoint."""

BIASED_WEIGHT: Final = 15
"""The weight of the action that a seed's clients prefer."""

ACTIONS: Final = (
    ("put", 12),
    ("read", 12),
    ("put-many", 6),
    ("read-many", 6),
    ("patch", 4),
    ("create", 2),
    ("delete", 3),
    ("overwrite", 3),
    ("mixed", 4),
    ("read-version", 4),
    ("update-if", 6),
    ("iterate", 5),
    ("generate", 2),
    ("expiring", 2),
    ("status", 1),
    ("synchronize", 1),
    ("activate", 1),
    ("close", 1),
    ("unlink", 0.3),
    ("retention", 0.5),
    ("cancel", 1),
)


class Worker(ClientDriver):
    """Thinks, does one of its actions, and thinks again, until the workload rests."""

    def __init__(self, workload: Workload, number: int) -> None:
        super().__init__(workload, number)
        emphasis = self.world.options.emphasis
        self._actions = [action for action, _ in ACTIONS]
        self._weights = [BIASED_WEIGHT if action == emphasis else weight for action, weight in ACTIONS]
        self._think()

    def _think(self) -> None:
        self.world.after(self.world.about(self.world.options.think_ns), self._act)

    def _act(self) -> None:
        if self.workload.resting:
            self._wake(self.client)
            return
        self._think()
        if self._naps or self.client.over or self.under_way >= self.world.options.pipeline:
            return
        may_nap = self.world.options.napping and self.client.attached and not self.client.pending
        if may_nap and self.world.chance(NAP):
            self._nap()
            return
        checkpoint = self.random.choice(self.workload.checkpoints)
        handle = self.handles.get(checkpoint.name)
        if handle is None:
            self.open(checkpoint)
            return
        self.act(self.random.choices(self._actions, self._weights)[0], handle)

    # -- pauses

    def _nap(self) -> None:
        """Ask nothing for a while, perhaps for longer than a session without a node is kept.

        Some programs ignore their link during that time; others ping their node.
        """
        client, grace_ns = self.client, self.world.options.session_grace_ns
        self._naps = True
        pause_ns = self.world.between(0, grace_ns * 3 // 2)
        self.world.after(pause_ns, lambda: self._wake(client))
        sleeps = self.world.chance(0.5)
        how = "sleeps" if sleeps else "is idle and keeps its session alive"
        self.world.say(f"{client.name}: {how} for {pause_ns // MILLISECOND_NS} ms")
        if sleeps:
            client.sleep()
        else:
            self._keep_up(client)

    def _keep_up(self, client: SimClient) -> None:
        if self._naps and client is self.client and not client.over:
            self.request(Kind.PING, 0, [], lambda result: None)
            self.world.after(self.world.options.session_grace_ns // 4, lambda: self._keep_up(client))

    def _wake(self, client: SimClient) -> None:
        """The pause or the client is over."""
        if client is self.client:
            self._naps = False
        if client.asleep:
            client.wake()

    def begin(self) -> None:
        """Begin a new session, unless the workload is closed."""
        self._naps = False
        super().begin()

    def act(self, action: str, handle: ClientHandle) -> None:
        """Do one named action on an open checkpoint, if it makes sense for its kind."""
        ids = handle.checkpoint.section_ids
        one = ids[0] if self.random.random() < 0.4 else self.random.choice(ids)
        some = self.random.sample(ids, self.random.randint(1, len(ids)))
        single, sync = handle.checkpoint.single, bool(handle.checkpoint.flags & SA_CKPT_WR_ALL_REPLICAS)
        match action:
            case "put":
                self.update(handle, [[Op.PUT, one, self.value(), None]])
            case "put-many":
                self.update(handle, [[Op.PUT, section_id, self.value(), None] for section_id in some])
            case "patch":
                self.update(handle, [[Op.PATCH, one, self.random.randint(0, 20), self.value(), None]])
            case "overwrite":
                self.update(handle, [[Op.OVERWRITE, one, self.value()]])
            case "create" if not single:
                self.update(handle, [[Op.CREATE, one, SA_TIME_END, self.value()]])
            case "delete" if not single:
                self.update(handle, [[Op.DELETE, one]])
            case "mixed" if not single:
                self.update(handle, [self._any_op(section_id) for section_id in some])
            case "generate" if not single and handle.generated < GENERATED_MAX:
                handle.generated += 1
                self.update(handle, [[Op.CREATE, b"", SA_TIME_END, self.value()]])
            case "expiring" if not single:
                until_ns = self.wall_ns() + self.world.between(50 * MILLISECOND_NS, 3 * SECOND_NS)
                self.update(handle, [[Op.PUT, EXPIRING_ID + b"%d" % self.number, self.value(), until_ns]])
            case "read-version":
                self.read_version(handle, one)
            case "update-if":
                wanted = {section_id: self._condition(handle, section_id) for section_id in some}
                self.update_if(handle, wanted, [[Op.PUT, one, self.value(), None]])
            case "read":
                self.read(handle, [one])
            case "read-many":
                self.read(handle, some)
            case "iterate":
                self.iterate(handle)
            case "status":
                self.status(handle)
            case "synchronize" if not sync:
                self.request(Kind.SYNCHRONIZE, handle.number, [], lambda result: self.judge(handle, result))
            case "activate" if handle.checkpoint.flags & SA_CKPT_CHECKPOINT_COLLOCATED and not sync:
                self.request(
                    Kind.ACTIVE_SET, handle.number, [False], lambda result: self.judge(handle, result)
                )
            case "close":
                self.close(handle)
            case "unlink":
                self.unlink(handle)
            case "retention":
                self.request(
                    Kind.RETENTION_SET,
                    handle.number,
                    [handle.checkpoint.retention_ns],
                    lambda result: self.judge(handle, result),
                )
            case "cancel" if self.client.pending:
                self.client.cancel(self.random.choice(list(self.client.pending)))

    def _condition(self, handle: ClientHandle, section_id: bytes) -> bytes | bool | None:
        """Return what an update requires of a section: a value that was seen, or presence, or absence."""
        seen = handle.seen.get(section_id)
        if seen is not None and self.random.random() < 0.7:
            return seen[0]
        return self.random.choice((True, None))

    def _any_op(self, section_id: bytes) -> list[Any]:
        """Return an operation that may be refused, so that an update can fail in the middle."""
        match self.random.randint(0, 3):
            case 0:
                return [Op.CREATE, section_id, SA_TIME_END, self.value()]
            case 1:
                return [Op.DELETE, section_id]
            case 2:
                return [Op.OVERWRITE, section_id, self.value()]
            case _:
                return [Op.PUT, section_id, self.value(), None]
