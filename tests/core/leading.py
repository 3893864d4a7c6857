"""A program that leads a checkpoint, for the scenario tests: it makes the requests, and renews when it is asked to."""

from typing import Any

from tests.core.client import Answer, Call, Opened
from tests.core.cluster import Cluster

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.messages import Kind, Op
from ckpt_protocol.parse_answers import LeaderAnswer, parse_leader_answer

SECOND_NS = 10**9
TTL_NS = 5 * SECOND_NS
ALL_KINDS = (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)


class Program:
    """A program with one open handle, which leads or waits to."""

    def __init__(
        self, cluster: Cluster, node_id: str, name: str, flags: int = SA_CKPT_WR_ALL_REPLICAS
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.client = cluster.client(node_id)
        self.table: Opened = self.client.open(flags=flags)
        self.secret = self.client.session + 1
        self.token = (0, 0)
        self.lineage = 0

    def lead_op(self, ttl_ns: int = TTL_NS, exclusive: bool = True, allow_loss: bool = False) -> list[Any]:
        handle = self.table.handle
        return [Op.LEAD, handle, self.secret, ttl_ns, exclusive, allow_loss, self.name, "host", 7]

    def ask_to_lead(self, **options: Any) -> Answer:
        """Join the queue."""
        return self.table.try_update(self.lead_op(**options))

    def lead(self, **options: Any) -> "Program":
        """Join the queue, and wait until this program leads."""
        answer = self.ask_to_lead(**options)
        assert answer.code == codes.OK, answer
        self.take_up()
        return self

    def take_up(self) -> None:
        """Wait until this program leads, as it would: with requests that wait for a change."""
        answer = self.ask()
        while answer.place != 0:
            answer = self.wait_for_change(answer.version)
        assert answer.leader is not None
        self.token = answer.leader.epoch, answer.leader.seq
        self.lineage = answer.lineage

    def ask(self, token: tuple[int, int] = (0, 0), whole: bool = False) -> LeaderAnswer:
        answer = self.table.call(Kind.LEADER, self.table.handle, *token, whole)
        assert answer.code == codes.OK, answer
        return parse_leader_answer(answer.payload)

    def renew(self) -> bool:
        """Renew the leadership. Return False if it has ended."""
        answer = self.ask(self.token)
        return answer.place == 0 and answer.leader is not None and answer.leader[:2] == self.token

    def wait_for_change(self, version: int) -> LeaderAnswer:
        answer = self.client.end(self.begin_wait(version))
        assert answer.code == codes.OK, answer
        return parse_leader_answer(answer.payload)

    def begin_wait(self, version: int) -> Call:
        return self.table.begin(Kind.LEADER_TRACK, self.table.handle, version)

    @property
    def token_op(self) -> list[Any]:
        return [Op.TOKEN, *self.token, self.secret, self.lineage]

    def begin_write(self, section_id: bytes, value: bytes) -> Call:
        return self.table.begin(Kind.UPDATE, [Op.PUT, section_id, value, None], self.token_op)

    def try_write(self, section_id: bytes, value: bytes) -> Answer:
        """Write as the leader."""
        return self.client.end(self.begin_write(section_id, value))

    def resign(self, successor: str | None = None) -> Answer:
        return self.table.try_update([Op.RESIGN, self.table.handle, successor])

    def run(self, seconds: float, every_s: float = 1.0) -> None:
        """Let time pass while this program renews."""
        while seconds > 0:
            self.cluster.run(1000 * min(seconds, every_s))
            seconds -= every_s
            assert self.renew()


def leader_name(program: Program) -> str:
    """Return who leads, as this program sees it; "" if nobody does."""
    leader = program.ask().leader
    return leader.program.name if leader is not None else ""
