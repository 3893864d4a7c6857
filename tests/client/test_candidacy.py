"""How a program comes to lead, and how it leaves, with a service that answers as the test says."""

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ckpt_client.checkpoint.leadership_state import SECOND_NS
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.async_leadership import AsyncLeadership
from ckpt_client.leadership.candidacy import Candidacy
from ckpt_client.leadership.lead_arguments import LeadArguments, lead_arguments
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.messages import Kind, Op

CREATION, HANDLE = 9, 4
ATTRIBUTES = [1, 1000, 0, 10, 100, 32]
OTHER = ["other", "host", 1, "b", True]
US = ["us", "host", 2, "a", True]


def led_by(program: list[Any], place: int | None, version: int = 5, seq: int = 30, **more: Any) -> list[Any]:
    """The answer to LEADER: this program leads with the token (9, 2, seq)."""
    leader = [2, seq, True, 1, 5 * SECOND_NS, more.get("lost", False), program]
    return [version, leader, place, more.get("lineage", 0), [], []]


class Service:
    """Stands for a connection. `leaders`: the answers to LEADER and LEADER_TRACK; after the last it waits."""

    def __init__(self, *leaders: list[Any] | SaAisError) -> None:
        self.leaders = list(leaders)
        self.requests: list[tuple[int, Any]] = []
        self.refuse: Callable[[int, Any], SaAisError | None] = lambda kind, fields: None
        self.left = False

    async def call(self, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        fields = unpack_body(body)
        self.requests.append((kind, fields))
        await asyncio.sleep(0)
        refusal = self.refuse(kind, fields)
        if refusal is not None:
            raise refusal
        if kind == Kind.OPEN:
            return [HANDLE, CREATION, ATTRIBUTES]
        if kind in (Kind.LEADER, Kind.LEADER_TRACK):
            if not self.leaders:
                try:
                    async with asyncio.timeout(min(timeout_ns / 1e9, 60)):
                        await asyncio.Event().wait()
                except TimeoutError:
                    raise error_of(codes.TIMEOUT) from None
            answer = self.leaders.pop(0)
            if isinstance(answer, SaAisError):
                raise answer
            return answer
        return [1]

    def renew(self) -> None:
        self.requests.append((0, "renew"))

    def leave(self) -> None:
        self.left = True

    async def release(self, limit: TimeLimit | None = None) -> None:
        self.left = True

    @property
    def kinds(self) -> list[int]:
        return [kind for kind, _ in self.requests]

    def ops(self) -> list[list[Any]]:
        return [fields[0] for kind, fields in self.requests if kind == Kind.UPDATE]


def candidate(service: Service, may_activate: bool = False, **more: Any) -> Candidacy:
    arguments: LeadArguments = lead_arguments(name="us", **more)
    return Candidacy(b"t", CREATION, arguments, lambda: service, lambda: may_activate)  # type: ignore[arg-type,return-value]


FOR_EVER = math.inf


def limit(seconds: float = FOR_EVER) -> TimeLimit:
    return TimeLimit(seconds, 0)


async def test_a_program_waits_in_the_queue_takes_up_its_grant_and_leads() -> None:
    waits, granted = led_by(OTHER, 1), led_by(US, 0, version=6, seq=31, lost=True, lineage=7)
    service = Service(waits, granted, granted)
    candidacy = candidate(service)
    await candidacy.win(limit())
    state = candidacy.state
    assert service.kinds[:5] == [Kind.OPEN, Kind.UPDATE, Kind.LEADER, Kind.LEADER_TRACK, Kind.LEADER]
    lead = service.ops()[0]
    assert lead[:2] == [Op.LEAD, HANDLE]
    assert lead[2] == state.secret > 0
    assert lead[3:7] == [5 * SECOND_NS, True, False, "us"]
    assert service.requests[3][1] == [HANDLE, 5]
    assert service.requests[4][1] == [HANDLE, 2, 31, False]
    assert state.token == (CREATION, 2, 31)
    assert (state.lineage, state.data_may_be_lost) == (7, True)
    state.check()
    await candidacy.leave()
    assert service.ops()[-1] == [Op.RESIGN, HANDLE, None]
    await asyncio.sleep(0)
    assert service.left


async def test_a_grant_that_is_over_before_it_is_taken_up_sends_the_program_to_the_queue_again() -> None:
    skipped = led_by(OTHER, None, version=7, seq=32)
    again = led_by(US, 0, version=8, seq=33)
    service = Service(led_by(US, 0), skipped, again, again)
    candidacy = candidate(service)
    await candidacy.win(limit())
    assert [op[0] for op in service.ops()] == [Op.LEAD, Op.LEAD]
    assert candidacy.state.token.seq == 33
    await candidacy.leave()


async def test_a_program_whose_session_ends_in_the_queue_joins_it_again() -> None:
    granted = led_by(US, 0)
    service = Service(led_by(OTHER, 1), error_of(codes.BAD_HANDLE, "the session has ended"), granted, granted)
    candidacy = candidate(service)
    await candidacy.win(limit())
    assert service.kinds.count(Kind.OPEN) == 2
    assert [op[0] for op in service.ops()] == [Op.LEAD, Op.LEAD]
    await candidacy.leave()


async def test_a_waiting_program_activates_its_replica_if_none_is_active() -> None:
    none = error_of(codes.NOT_EXIST, "there is no active replica")
    granted = led_by(US, 0)
    service = Service(led_by(OTHER, 1), none, granted, granted)
    candidacy = candidate(service, may_activate=True)
    await candidacy.win(limit())
    assert Kind.ACTIVE_SET in service.kinds
    await candidacy.leave()


async def test_without_the_permission_to_activate_the_call_fails() -> None:
    service = Service()
    service.refuse = lambda kind, _: error_of(codes.NOT_EXIST, "none") if kind == Kind.UPDATE else None
    with pytest.raises(SaAisError) as refused:
        await candidate(service).win(limit())
    assert refused.value.code == codes.NOT_EXIST
    await asyncio.sleep(0)
    assert service.left


async def test_a_full_queue_is_an_error() -> None:
    service = Service()
    service.refuse = lambda kind, _: error_of(codes.NO_RESOURCES, "100") if kind == Kind.UPDATE else None
    with pytest.raises(SaAisError) as refused:
        await candidate(service).win(limit())
    assert refused.value.code == codes.NO_RESOURCES
    await asyncio.sleep(0)
    assert service.left


async def test_when_the_time_is_over_the_program_leaves_the_queue_and_learns_its_place() -> None:
    service = Service(led_by(OTHER, 2))
    with pytest.raises(SaAisError, match=r"number 2 of those that wait.*'other'") as refused:
        await candidate(service).win(limit(0.05))
    assert refused.value.code == codes.TIMEOUT
    await asyncio.sleep(0)
    assert service.left


async def test_a_cancelled_program_leaves_the_queue() -> None:
    service = Service(led_by(OTHER, 1))
    task = asyncio.create_task(candidate(service).win(limit()))
    while Kind.LEADER_TRACK not in service.kinds:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert service.left


async def test_a_leadership_that_another_program_has_now_is_lost() -> None:
    service = Service(led_by(US, 0), led_by(US, 0), led_by(OTHER, None, version=9, seq=40))
    candidacy = candidate(service)
    ends: list[bool] = []
    candidacy.state.on_end = ends.append
    await candidacy.win(limit())
    await candidacy.over()
    assert ends == [True]
    assert "'other' (process 1 on 'host') leads now" in candidacy.state.ended
    await candidacy.leave()


async def test_a_new_lineage_is_noticed_before_the_next_write() -> None:
    service = Service(led_by(US, 0), led_by(US, 0), led_by(US, 0, version=9, lineage=3))
    candidacy = candidate(service)
    await candidacy.win(limit())
    while service.leaders:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert candidacy.state.data_may_be_lost
    assert candidacy.state.lineage == 3
    await candidacy.leave()


async def test_a_program_whose_successor_does_not_wait_leads_as_before() -> None:
    service = Service(led_by(US, 0), led_by(US, 0))
    candidacy = candidate(service)
    await candidacy.win(limit())
    service.refuse = lambda kind, _: error_of(codes.NOT_EXIST, "none waits") if kind == Kind.UPDATE else None
    with pytest.raises(SaAisError) as refused:
        await candidacy.resign("x", limit(1))
    assert refused.value.code == codes.NOT_EXIST
    candidacy.state.check()
    assert not service.left
    service.refuse = lambda kind, fields: None
    await candidacy.resign("y", limit(1))
    assert service.ops()[-1] == [Op.RESIGN, HANDLE, "y"]
    await asyncio.sleep(0)
    assert service.left
    assert candidacy.state.ended == "it has resigned"


async def test_another_creation_of_the_name_is_not_led() -> None:
    service = Service()
    candidacy = Candidacy(b"t", CREATION + 1, lead_arguments(), lambda: service, lambda: False)  # type: ignore[arg-type,return-value]
    with pytest.raises(SaAisError) as refused:
        await candidacy.win(limit())
    assert refused.value.code == codes.NOT_EXIST
    assert Kind.CLOSE in service.kinds
    assert not service.ops()


async def test_a_candidacy_that_was_left_before_it_begins_does_not_wait() -> None:
    service = Service(led_by(OTHER, 1))
    candidacy = candidate(service)
    await candidacy.leave()
    with pytest.raises(SaAisError, match="was left") as refused:
        await candidacy.win(limit())
    assert refused.value.code == codes.BAD_HANDLE
    assert service.requests == []


async def test_another_thread_may_notice_the_loss_while_tasks_await_it() -> None:
    called: list[int] = []
    granted = led_by(US, 0)
    service = Service(granted, granted)
    candidacy = candidate(service, on_lost=lambda: called.append(threading.get_ident()))
    leadership = AsyncLeadership(candidacy, candidacy._arguments, lambda what, error: error, lambda: None)
    await leadership.win(limit())
    asyncio.get_running_loop().set_debug(True)  # Then the loop refuses what other threads must not do.
    waiting = [asyncio.create_task(leadership.lost.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.to_thread(candidacy.state.end, "its time is over")
    await asyncio.gather(*waiting)
    assert called == [threading.get_ident()]
    await leadership.close()
