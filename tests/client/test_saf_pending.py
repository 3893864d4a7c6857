"""Pending callbacks: the descriptor is readable exactly while there is one, whatever threads do."""

import gc
import os
import select
import threading
import weakref
from collections.abc import Iterator

import pytest
from tests.client.saf_fake import until

from ckpt_client.saf.callbacks import PendingCallbacks


class Owner:
    """Whom a callback is for."""


ME = Owner()


@pytest.fixture
def pending() -> Iterator[PendingCallbacks]:
    """A queue that is closed afterwards."""
    made = PendingCallbacks()
    yield made
    made.close()


def readable(pending: PendingCallbacks) -> bool:
    """What `select` says of the descriptor."""
    return bool(select.select([pending.fileno()], [], [], 0)[0])


def check(pending: PendingCallbacks) -> None:
    """The descriptor is readable exactly while a callback is pending."""
    with pending.changed:
        assert readable(pending) == bool(len(pending))


def test_callbacks_come_in_their_order_and_once(pending: PendingCallbacks) -> None:
    calls = [lambda number=number: number for number in range(3)]
    assert pending.take() is None
    for call in calls:
        assert pending.put(ME, call)
        check(pending)
    for call in calls:
        assert pending.take() is call
        check(pending)
    assert pending.take() is None


def test_the_descriptor_is_always_the_same_and_asked_for_at_any_time(pending: PendingCallbacks) -> None:
    pending.put(ME, int)
    assert readable(pending), "it was put before anybody asked"
    descriptor = pending.fileno()
    for _ in range(3):
        pending.take()
        check(pending)
        pending.put(ME, int)
        check(pending)
        assert pending.fileno() == descriptor


def test_a_program_that_reads_the_descriptor_blocks_no_other_thread(pending: PendingCallbacks) -> None:
    pending.put(ME, int)
    os.read(pending.fileno(), 100)
    assert pending.take() is int
    pending.put(ME, int)
    check(pending)


def test_many_callbacks_do_not_fill_the_descriptor(pending: PendingCallbacks) -> None:
    pending.fileno()
    for _ in range(70_000):
        pending.put(ME, int)
    while pending.take() is not None:
        pass
    check(pending)


def test_an_owners_callbacks_are_cancelled_and_no_others(pending: PendingCallbacks) -> None:
    mine, other = Owner(), Owner()
    for number in range(6):
        pending.put(mine if number % 2 else other, lambda number=number: number)
    pending.cancel(mine)
    check(pending)
    taken = [pending.take() for _ in range(3)]
    assert [call() for call in taken if call is not None] == [0, 2, 4]
    check(pending)
    pending.put(other, int)
    pending.cancel(other)
    assert len(pending) == 0
    check(pending)


def test_a_cancelled_owner_gets_no_callback_put_afterwards(pending: PendingCallbacks) -> None:
    """The service's thread put one for a checkpoint that the program's had closed just then."""
    owner = Owner()
    pending.cancel(owner)
    assert not pending.put(owner, int)
    assert pending.take() is None
    check(pending)
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


def test_a_closed_queue_forgets_all_and_takes_nothing(pending: PendingCallbacks) -> None:
    descriptor = pending.fileno()
    owner = Owner()
    pending.put(owner, int)
    gone = weakref.ref(owner)
    del owner
    pending.close()
    assert gone() is None
    assert not pending.put(ME, int)
    assert (len(pending), pending.take(), pending.closed) == (0, None, True)
    with pytest.raises(OSError):
        os.fstat(descriptor)
    pending.close()
    pending.cancel(ME)


def test_closing_wakes_the_threads_that_wait(pending: PendingCallbacks) -> None:
    waiting = threading.Event()

    def wait() -> None:
        with pending.changed:
            waiting.set()
            pending.changed.wait_for(lambda: pending.closed)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait()
    pending.close()
    thread.join(10)
    assert not thread.is_alive()


def test_no_descriptor_left_is_an_os_error(
    pending: PendingCallbacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe", refuse)
    with pytest.raises(OSError):
        pending.fileno()
    pending.put(ME, int)
    assert pending.take() is int


def test_threads_put_take_and_cancel(pending: PendingCallbacks) -> None:
    count, putters, takers = 2_000, 3, 2
    taken: list[int] = []
    wrong: list[BaseException] = []
    ended = threading.Event()
    cancelled = Owner()

    def put(first: int) -> None:
        for number in range(first, first + count):
            pending.put(ME, lambda number=number: taken.append(number))
            if number % 50 == 0:
                pending.put(cancelled, lambda: wrong.append(AssertionError("cancelled")))
                check_here()

    def take() -> None:
        while not ended.is_set() or len(pending):
            call = pending.take()
            if call is not None:
                call()
            check_here()

    def check_here() -> None:
        try:
            check(pending)
        except BaseException as error:
            wrong.append(error)

    pending.cancel(cancelled)
    putting = [threading.Thread(target=put, args=(first * count,)) for first in range(putters)]
    taking = [threading.Thread(target=take) for _ in range(takers)]
    for thread in putting + taking:
        thread.start()
    for thread in putting:
        thread.join()
    ended.set()
    for thread in taking:
        thread.join()
    assert wrong == []
    assert sorted(taken) == list(range(putters * count))
    check(pending)


def test_one_taker_gets_each_putters_callbacks_in_order(pending: PendingCallbacks) -> None:
    taken: list[tuple[int, int]] = []

    def put(name: int) -> None:
        for number in range(500):
            pending.put(ME, lambda number=number: taken.append((name, number)))

    for name in range(2):
        threading.Thread(target=put, args=(name,)).start()

    def take() -> bool:
        while (call := pending.take()) is not None:
            call()
        return len(taken) == 1_000

    until(take)
    for name in range(2):
        numbers = [number for putter, number in taken if putter == name]
        assert numbers == sorted(numbers)
