"""`AsyncCheckpointService`: calls that are cancelled, tracking as an iterator, loops."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from tests.client.cancelling import cancel_everywhere, run_clean
from tests.client.fixtures import Start, start
from tests.client.saf_fake import (
    ALL_MODES,
    NAME,
    READ,
    SafService,
    attributes,
    other_tasks,
    refused,
    service,
    tracked,
    unanswered,
)

from ckpt_client.saf import AsyncCheckpoint, AsyncCheckpointService, SaAisErrorT, SectionChange
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind

__all__ = ["service", "start"]

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
async def library(start: Start) -> AsyncIterator[AsyncCheckpointService]:
    """A service at a node that serves TRACK; afterwards nothing of it is left in the loop."""
    node = start()
    node.misbehave = tracked()
    made = await AsyncCheckpointService.initialize(address=node.url)
    yield made
    if not made.finalized:
        await made.finalize()
    while other_tasks():
        await asyncio.sleep(0)


async def opened(library: AsyncCheckpointService) -> AsyncCheckpoint:
    """A checkpoint for everything."""
    return await library.checkpoint_open(NAME, ALL_MODES, attributes())


# -- calls


async def test_the_calls_do_what_the_blocking_ones_do(
    library: AsyncCheckpointService, service: SafService
) -> None:
    checkpoint = await opened(library)
    assert await checkpoint.section_create("k", initial_data="1") == b"k"
    await checkpoint.overwrite(b"k", bytearray(b"22"))
    assert await checkpoint.read([("k", None, 0), ("k", 1, 1)]) == [b"22", b"2"]
    await checkpoint.section_create("l")
    assert [section.section_id async for section in checkpoint.section_iteration()] == [b"k", b"l"]
    iteration = await checkpoint.section_iteration_initialize(5)
    assert [(await iteration.next()).section_size for _ in range(2)] == [2, 0]
    with refused(SaAisErrorT.SA_AIS_ERR_NO_SECTIONS, "saCkptSectionIterationNext"):
        await iteration.next()
    await iteration.finalize()
    await checkpoint.section_delete("l")
    await checkpoint.synchronize()
    assert (await checkpoint.status_get()).number_of_sections == 1
    await checkpoint.close()
    await library.checkpoint_unlink(NAME)
    await library.finalize()
    assert service.sessions == {} and service.checkpoints == {}


async def test_errors_name_the_call_and_the_element(library: AsyncCheckpointService) -> None:
    checkpoint = await opened(library)
    with refused(codes.NOT_EXIST, "saCkptCheckpointRead") as caught:
        await checkpoint.read([("k", 1, 0), ("l", 1, 0)])
    assert caught.value.erroneous_vector_index == 0 and caught.value.version is None
    with refused(codes.INVALID_PARAM, "saCkptCheckpointWrite") as caught:
        await checkpoint.write([("k", b"", 0), ("k", b"", -1)])
    assert caught.value.erroneous_vector_index == 1
    with refused(codes.NOT_EXIST, "saCkptSectionDelete") as caught:
        await checkpoint.section_delete("k")
    with refused(SaAisErrorT.SA_AIS_ERR_VERSION, "saCkptInitialize") as caught:
        await AsyncCheckpointService.initialize(("C", 1, 1))
    assert (caught.value.version, caught.value.erroneous_vector_index) == (("B", 2, 2), None)
    reader = await library.checkpoint_open(NAME, READ)
    with refused(codes.ACCESS, "saCkptSectionOverwrite"):
        await reader.overwrite("k", "v")


async def test_after_finalize_and_close_handles_are_bad(library: AsyncCheckpointService) -> None:
    first, second = await opened(library), await opened(library)
    iteration = await second.section_iteration_initialize(5)
    changes = await second.track()
    await first.close()
    with refused(codes.BAD_HANDLE, "saCkptCheckpointClose"):
        await first.close()
    await library.finalize()
    for call, made in (
        ("saCkptFinalize", library.finalize()),
        ("saCkptCheckpointOpen", library.checkpoint_open("", 0)),
        ("saCkptCheckpointUnlink", library.checkpoint_unlink("")),
        ("saCkptCheckpointStatusGet", second.status_get()),
        ("saCkptCheckpointClose", second.close()),
        ("saCkptSectionIterationNext", iteration.next()),
        ("saCkptCheckpointTrack", anext(changes)),
    ):
        with refused(codes.BAD_HANDLE, call):
            await made


async def test_finalize_ends_what_other_tasks_wait_for(start: Start) -> None:
    node = start()
    library = await AsyncCheckpointService.initialize(address=node.url)
    checkpoint = await opened(library)
    node.misbehave = unanswered(Kind.READ, Kind.OPEN)
    tasks = [
        asyncio.ensure_future(checkpoint.read([("k", 1, 0)])),
        asyncio.ensure_future(library.checkpoint_open(NAME, READ)),
    ]
    while node.kinds().count(Kind.OPEN) < 2:
        await asyncio.sleep(0)
    await library.finalize()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(end, "code", end) for end in ends] == [codes.BAD_HANDLE, codes.TIMEOUT]


# -- cancelled


def test_any_call_cancelled_at_every_turn_leaves_the_service_sound(start: Start, service: SafService) -> None:
    node = start()

    async def work() -> None:
        library = await AsyncCheckpointService.initialize(address=node.url)
        checkpoint = await opened(library)
        await checkpoint.section_create("k")

        async def use(turn: int) -> None:
            await checkpoint.overwrite("k", str(turn))
            other = await opened(library)
            await asyncio.gather(other.read([("k", None, 0)]), checkpoint.status_get())
            _ = [section async for section in other.section_iteration()]
            await other.close()

        async def prepare(turn: int) -> Coroutine[Any, Any, None]:
            return use(turn)

        async def check(turn: int) -> None:
            await checkpoint.overwrite("k", "after")
            assert await checkpoint.read([("k", None, 0)]) == [b"after"]
            await checkpoint.status_get()  # Answers come in order: what was given up is closed by then.

        assert await cancel_everywhere(prepare, check) > 5
        assert library.connection._session.calls == {}
        await library.finalize()

    run_clean(work)
    assert service.applied_twice == [] and service.sessions == {}


def test_an_initialize_cancelled_at_every_turn_leaves_nothing(start: Start, service: SafService) -> None:
    node = start()

    async def begin_and_end() -> None:
        library = await AsyncCheckpointService.initialize(address=node.url)
        try:
            await opened(library)
        finally:
            await library.finalize()

    async def work() -> None:
        async def prepare(turn: int) -> Coroutine[Any, Any, None]:
            return begin_and_end()

        async def check(turn: int) -> None:
            assert other_tasks() == []

        assert await cancel_everywhere(prepare, check) > 3

    run_clean(work)


def test_tracking_cancelled_at_every_turn_leaves_nothing(start: Start) -> None:
    node = start()
    node.misbehave = tracked()

    async def work() -> None:
        library = await AsyncCheckpointService.initialize(address=node.url)
        checkpoint, writer = await opened(library), await opened(library)
        await writer.section_create("k")

        async def hear(turn: int) -> None:
            changes = await checkpoint.track()
            first = asyncio.ensure_future(anext(changes))
            try:
                while not first.done():
                    await writer.overwrite("k", str(turn))
                await first
            finally:
                first.cancel()
                await asyncio.wait([first])

        async def prepare(turn: int) -> Coroutine[Any, Any, None]:
            return hear(turn)

        async def check(turn: int) -> None:
            await writer.overwrite("k", "after")
            assert await checkpoint.read([("k", None, 0)]) == [b"after"]

        assert await cancel_everywhere(prepare, check) > 3
        await library.finalize()

    run_clean(work)


# -- tracking


async def test_changes_come_as_they_are_made(library: AsyncCheckpointService) -> None:
    writer, checkpoint = await opened(library), await library.checkpoint_open(NAME, READ)
    await writer.section_create("before")
    lists = await checkpoint.begin_tracking()
    await writer.section_create("a")
    await writer.overwrite("before", "1")
    await writer.section_delete("a")
    told: list[SectionChange] = []
    async for changes in lists:
        told += changes
        if len(told) == 3:
            break
    assert [(change.change.name, change.section_id) for change in told] == [
        ("CREATED", b"a"),
        ("OVERWRITTEN", b"before"),
        ("DELETED", b"a"),
    ]


async def test_two_trackers_of_a_handle_and_one_that_goes(library: AsyncCheckpointService) -> None:
    writer, checkpoint = await opened(library), await library.checkpoint_open(NAME, READ)
    trackers = [await checkpoint.track() for _ in range(2)]
    firsts = [asyncio.ensure_future(anext(changes)) for changes in trackers]
    number = 0
    while not all(first.done() for first in firsts):
        await writer.section_create(str(number))
        number += 1
    second = firsts[1].result().section_id
    told = [second]
    async for change in trackers[1]:
        told.append(change.section_id)
        if len(told) == number - int(second):
            break
    assert told == [b"%d" % n for n in range(int(second), number)], "none is missed, in order"


async def test_tracking_needs_reading(library: AsyncCheckpointService) -> None:
    await opened(library)
    writer = await library.checkpoint_open(NAME, 2)
    with refused(codes.ACCESS, "saCkptCheckpointTrack"):
        await writer.track()


async def test_the_end_of_its_session_ends_tracking(
    library: AsyncCheckpointService, service: SafService
) -> None:
    """It waited for ever: UNAVAILABLE, as B.02 calls it, was a reason to wait."""
    changes = await (await opened(library)).track()
    first = asyncio.ensure_future(anext(changes))
    while not service.waiting:
        await asyncio.sleep(0)
    link = service.waiting.pop()[0]
    service.end_session(link.session_id)
    link.cut()
    with refused(codes.UNAVAILABLE, "saCkptCheckpointTrack"):
        await first


# -- loops


async def test_two_services_on_one_loop(start: Start, service: SafService) -> None:
    a, b = start("a"), start("b", "tcp", key=b"secret", cluster="other")
    first = await AsyncCheckpointService.initialize(("B", 1, 1), address=a.url)
    second = await AsyncCheckpointService.initialize(address=b.url, cluster="other", key="secret")
    checkpoints = [await opened(library) for library in (first, second)]
    assert len(service.sessions) == 2
    await first.finalize()
    with refused(codes.BAD_HANDLE):
        await checkpoints[0].status_get()
    await checkpoints[1].status_get()
    await second.finalize()
    assert service.sessions == {}


async def test_a_service_belongs_to_its_loop(library: AsyncCheckpointService) -> None:
    checkpoint = await opened(library)

    def elsewhere() -> list[Any]:
        async def work() -> list[Any]:
            calls = [
                checkpoint.status_get(),
                checkpoint.overwrite("k", "v"),
                library.checkpoint_open(NAME, READ),
                checkpoint.track(),
            ]
            ends = [(await asyncio.gather(call, return_exceptions=True))[0] for call in calls]
            return [(getattr(end, "code", end), getattr(end, "call", "")) for end in ends]

        return asyncio.run(work())

    assert await asyncio.to_thread(elsewhere) == [
        (codes.BAD_HANDLE, "saCkptCheckpointStatusGet"),
        (codes.BAD_HANDLE, "saCkptSectionOverwrite"),
        (codes.BAD_HANDLE, "saCkptCheckpointOpen"),
        (codes.BAD_HANDLE, "saCkptCheckpointTrack"),
    ]
    await checkpoint.status_get()
