"""A client that resizes checkpoints, and looks from outside which limits are in force.

Each checkpoint that is resized has one such client, which makes one call at a time. Limits are never below
what the other clients need. So those see nothing of a resize but the attributes.
"""

from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.messages import Kind, Op
from ckptd.sim.checkers.history import Operation, Outcome
from ckptd.sim.checkers.limits_history import KnownLimits, SimLimits, limits_of
from ckptd.sim.clients.checkpoints import SimCheckpoint
from ckptd.sim.clients.client_driver import ClientDriver
from ckptd.sim.clients.client_handle import ClientHandle
from ckptd.sim.clients.sim_client import CallResult
from ckptd.sim.clients.workload import Workload

PROBE_ID: Final = b"r"
"""How the id begins of the section that such a client writes, to see how large it may be."""

SECTIONS: Final = (64, 72, 96)
SECTION_BYTES: Final = (96, 120, 160)
ID_BYTES: Final = (8, 12, 40)
"""What the limits are drawn from. The first of each is that of the creation."""

PROBE_BYTES: Final = (40, 96, 97, 120, 121, 160, 161)

ACTIONS: Final = (("resize", 5), ("probe", 5), ("status", 2), ("close", 0.5))


class ResizingClient(ClientDriver):
    """Resizes its share of the checkpoints, until the workload rests."""

    def __init__(self, workload: Workload, number: int, place: int) -> None:
        self.place = place
        self.resize_numbers: dict[tuple[int, int], int] = {}
        """By session and number of a request: the checkpoint that it resizes."""

        self.probe_sizes: dict[int, int] = {}
        """By creation id: the largest size that this client's section had at any time. It may get that again,
        if the newest updates are lost."""

        super().__init__(workload, number)
        self._think()

    @property
    def checkpoints(self) -> list[SimCheckpoint]:
        """Those that this client resizes."""
        own = self.workload.checkpoints[self.place :: self.world.options.resizers]
        return [checkpoint for checkpoint in own if not checkpoint.single]

    def _think(self) -> None:
        self.world.after(self.world.about(self.world.options.think_ns), self._act)

    def _act(self) -> None:
        if self.workload.resting:
            return
        self._think()
        if self.client.over or self.under_way or not self.checkpoints:
            return
        checkpoint = self.random.choice(self.checkpoints)
        handle = self.handles.get(checkpoint.name)
        if handle is None:
            self.open(checkpoint)
            return
        names = [name for name, _ in ACTIONS]
        match self.random.choices(names, [weight for _, weight in ACTIONS])[0]:
            case "resize":
                self._resize(handle)
            case "probe":
                self._probe(handle)
            case "status":
                self.status(handle)
            case "close":
                self.close(handle)

    def _known(self, handle: ClientHandle) -> KnownLimits:
        return self.workload.limits.known(handle.creation_id, handle.checkpoint.attributes())

    # -- resizing

    def _resize(self, handle: ClientHandle) -> None:
        known = self._known(handle)
        wanted: SimLimits = (
            self.random.choice(SECTIONS),
            self.random.choice(SECTION_BYTES),
            self.random.choice(ID_BYTES),
        )
        at_least = known.certain and self.random.random() < 0.2
        asked = list(wanted)
        if at_least:
            a, b, c = map(max, known.in_force, wanted)
            wanted = (a, b, c)
        known.asked.append(wanted)
        client, number = self.client, self.client.next_number
        self.resize_numbers[client.session, number] = handle.creation_id
        self.workload.leaderships.sent[client.session, number] = None

        def ended(result: CallResult) -> None:
            self.world.trace.note(self.world.now_ns, client.name, f"resize {asked}: {result}")
            if client is self.client:
                self.judge(handle, result)
            self._on_resized(known, handle, wanted, result)

        self.request(Kind.UPDATE, handle.number, [[Op.RESIZE, *asked, at_least]], ended)

    def _on_resized(
        self, known: KnownLimits, handle: ClientHandle, wanted: SimLimits, result: CallResult
    ) -> None:
        if result.outcome == Outcome.OK:
            if result.payload != list(wanted):
                known.wrong.append(f"a resize to {wanted} was answered with {result.payload}")
            known.in_force = wanted
        elif result.outcome in (Outcome.UNKNOWN, Outcome.PENDING):
            known.doubtful.append(wanted)
        elif result.code == codes.NO_SPACE and known.certain:
            shrinks = wanted[0] < known.in_force[0]
            shrinks |= wanted[1] < self.probe_sizes.get(handle.creation_id, 0)
            if not shrinks:
                known.wrong.append(f"a resize from {known.in_force} to {wanted} was refused: {result.text}")

    def _on_repeated(self, number: int, first: CallResult, second: CallResult) -> None:
        creation_id = self.resize_numbers.get((self.client.session, number))
        if creation_id is None:
            super()._on_repeated(number, first, second)
        elif second.outcome == Outcome.OK:
            text = f"resize {number} was carried out after it was refused ({first.text})"
            self.workload.leaderships.repeated.append((creation_id, text))

    # -- looking

    def _probe(self, handle: ClientHandle) -> None:
        """Write a section that may be too large, and judge whether that is accepted."""
        known, size = self._known(handle), self.random.choice(PROBE_BYTES)
        ops: list[list[Any]] = [[Op.PUT, PROBE_ID + b"%d" % self.number, self.value().ljust(size), None]]
        call = self._begin(handle, Operation.UPDATE, ops)
        before = known.in_force[1] if known.certain else 0
        largest = max(self.probe_sizes.get(handle.creation_id, 0), size)
        self.probe_sizes[handle.creation_id] = largest

        def ended(result: CallResult) -> None:
            self._end(handle, call, result)
            if not before:
                return
            if result.outcome == Outcome.OK and size > before:
                known.wrong.append(f"{size} bytes were accepted, and {before} are allowed: {call.describe()}")
            if result.code == codes.INVALID_PARAM and size <= before:
                known.wrong.append(f"{size} bytes were refused, and {before} are allowed: {call.describe()}")

        self.request(Kind.UPDATE, handle.number, ops, ended)

    def check_attributes(self, handle: ClientHandle, attributes: list[int], what: str) -> None:
        """Judge the attributes in an answer: this client knows which limits are in force."""
        super().check_attributes(handle, attributes, what)
        known = self._known(handle)
        own = handle.checkpoint in self.checkpoints and not self.workload.resting
        if own and known.certain and limits_of(attributes) != known.in_force:
            known.wrong.append(f"{what} shows {attributes}, and {known.in_force} are in force")
