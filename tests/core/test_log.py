"""The update log: what is held for replicas that come back, which logs are beginnings, and the answers."""

import pytest

from ckpt_protocol import codes
from ckpt_protocol.errors import RequestError
from ckpt_protocol.limits import ANSWERS_MAX
from ckptd.core.content.update_log import HISTORY_EPOCHS, LOG_BYTES_MIN, Update, UpdateLog
from ckptd.core.reply_cache import FORGOTTEN

SESSION = 11


def update(epoch: int, seq: int, body: bytes = b"") -> Update:
    return Update(epoch, seq, 0, SESSION, seq, 0, body)


def filled(*lasts: tuple[int, int], body: bytes = b"", bytes_max: int = LOG_BYTES_MIN) -> UpdateLog:
    """A log with these epochs, each with its last seq."""
    log = UpdateLog(bytes_max)
    for epoch, last in lasts:
        while log.seq < last:
            log.append(update(epoch, log.seq + 1, body))
    return log


def seqs_after(log: UpdateLog, seq: int) -> list[int]:
    return [staged.seq for staged in log.updates_after(seq)]


# -- order


def test_updates_after_any_seq_come_back_in_order() -> None:
    log = filled((1, 3), (2, 5))
    assert (log.epoch, log.seq) == (2, 5)
    assert [seqs_after(log, seq) for seq in range(7)] == [
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5],
        [3, 4, 5],
        [4, 5],
        [5],
        [],
        [],
    ]


def test_an_empty_log_reaches_back_only_to_itself() -> None:
    log = UpdateLog()
    assert log.holds_since(0)
    assert not log.holds_since(1)
    assert seqs_after(log, 0) == []


def test_a_log_reaches_back_to_what_it_holds_and_not_ahead() -> None:
    log = filled((1, 4))
    assert [log.holds_since(seq) for seq in range(6)] == [True] * 5 + [False]
    log.entries.popleft()
    assert [log.holds_since(seq) for seq in range(6)] == [False] + [True] * 4 + [False]


# -- trimming


def test_nothing_is_trimmed_while_it_is_not_committed() -> None:
    log = filled((1, 200), body=bytes(1000))
    log.compact(0)
    assert len(log.entries) == 200


def test_committed_updates_are_trimmed_down_to_the_least_that_is_kept() -> None:
    log = filled((1, 200), body=bytes(1000))
    log.committed_seq = 200
    log.compact(0)
    assert log.entry_bytes <= LOG_BYTES_MIN < log.entry_bytes + 1000 + 300
    first = log.entries[0].seq
    assert [staged.seq for staged in log.entries] == list(range(first, 201))
    assert log.holds_since(first - 1)
    assert not log.holds_since(first - 2)
    assert seqs_after(log, 198) == [199, 200]


def test_trimming_stops_at_the_first_update_that_is_not_committed() -> None:
    log = filled((1, 200), body=bytes(1000))
    log.committed_seq = 20
    log.compact(0)
    assert log.entries[0].seq == 21


def test_as_much_is_kept_as_the_content_would_cost_up_to_the_limit() -> None:
    generous = filled((1, 200), body=bytes(1000), bytes_max=10**9)
    generous.committed_seq = 200
    generous.compact(10**9)
    assert len(generous.entries) == 200
    generous.compact(100_000)
    assert 98_000 < generous.entry_bytes <= 100_000
    limited = filled((1, 200), body=bytes(1000), bytes_max=100_000)
    limited.committed_seq = 200
    limited.compact(10**9)
    assert limited.entry_bytes <= 100_000


def test_the_bytes_are_counted_to_nothing_when_everything_goes() -> None:
    log = filled((1, 50), body=bytes(1000), bytes_max=0)
    log.committed_seq = 50
    log.compact(0)
    assert (list(log.entries), log.entry_bytes, log.seq) == ([], 0, 50)
    log.append(update(1, 51))
    assert seqs_after(log, 50) == [51]
    assert not log.holds_since(49)


# -- ancestry


@pytest.mark.parametrize(
    ("epoch", "seq", "prefix"),
    [
        (0, 0, True),
        (1, 1, True),
        (1, 3, True),
        (1, 4, False),
        (4, 5, True),
        (4, 6, True),
        (4, 7, False),
        (6, 7, True),
        (6, 8, True),
        (6, 9, False),
        (5, 4, False),
        (7, 8, False),
        (2, 3, False),
    ],
)
def test_a_log_is_a_beginning_when_its_end_lies_in_its_epoch(epoch: int, seq: int, prefix: bool) -> None:
    assert filled((1, 3), (4, 6), (6, 8)).is_prefix(epoch, seq) is prefix


def test_a_longer_branch_is_no_beginning_although_its_epoch_is_older() -> None:
    """Nine updates of epoch 1, of which epoch 2 took over five only: the others were never agreed upon."""
    log = filled((1, 5), (2, 7))
    assert log.is_prefix(1, 5)
    assert not log.is_prefix(1, 6)
    assert not log.is_prefix(1, 9)


def test_everything_is_a_beginning_of_nothing_only_when_it_is_empty() -> None:
    assert UpdateLog().is_prefix(0, 0)
    assert UpdateLog().is_prefix(3, 0)
    assert not UpdateLog().is_prefix(1, 1)


def test_epochs_before_those_remembered_are_no_beginnings_and_so_are_rebuilt_whole() -> None:
    log = filled(*((epoch, epoch) for epoch in range(1, HISTORY_EPOCHS + 12)))
    assert len(log.last_seq_by_epoch) == HISTORY_EPOCHS
    remembered = [epoch for epoch in range(1, HISTORY_EPOCHS + 12) if log.is_prefix(epoch, epoch)]
    assert remembered == list(range(11, HISTORY_EPOCHS + 12))


def test_a_restart_takes_the_other_place_and_drops_what_was_staged() -> None:
    log = filled((1, 5))
    log.pending.append(log.entries[-1])
    log.record_reply(SESSION, 1, 1, 1, b"kept")
    log.reset_to(7, 40, [(1, 2), (3, 39)])
    assert (log.epoch, log.seq, log.committed_seq, log.entry_bytes) == (7, 40, 40, 0)
    assert not log.entries
    assert not log.pending
    assert log.is_prefix(3, 39)
    assert not log.is_prefix(1, 5)
    assert log.holds_since(40)
    assert not log.holds_since(39)
    log.append(update(8, 41))
    assert log.last_seq_by_epoch == [(1, 2), (3, 39), (7, 40)]
    assert log.find_reply(SESSION, 1, 1) == (1, b"kept")


# -- answers


def test_a_retry_finds_the_answer_of_its_request_and_no_other() -> None:
    log = UpdateLog()
    assert log.find_reply(SESSION, 1, 1) is None
    log.record_reply(SESSION, 1, 1, 10, b"one")
    log.record_reply(SESSION, 3, 1, 11, b"three")
    assert log.find_reply(SESSION, 1, 1) == (10, b"one")
    assert log.find_reply(SESSION, 2, 1) is None
    assert log.find_reply(SESSION, 3, 1) == (11, b"three")
    assert log.find_reply(SESSION + 1, 1, 1) is None


def test_answers_below_the_lowest_unanswered_request_are_forgotten_and_those_requests_are_stale() -> None:
    log = UpdateLog()
    for request in (1, 2, 3, 4):
        log.record_reply(SESSION, request, 1, request, b"%d" % request)
    assert log.find_reply(SESSION, 4, 3) == (4, b"4")
    assert sorted(log.answers[SESSION].by_request) == [3, 4]
    assert log.find_reply(SESSION, 2, 3) == (0, FORGOTTEN)
    assert log.find_reply(SESSION, 3, 3) == (3, b"3")


def test_an_older_lowest_that_came_late_brings_nothing_back() -> None:
    log = UpdateLog()
    log.record_reply(SESSION, 5, 5, 1, b"five")
    log.record_reply(SESSION, 6, 2, 2, b"six")
    assert log.answers[SESSION].first_unanswered == 5
    assert log.find_reply(SESSION, 4, 2) == (0, FORGOTTEN)
    assert log.find_reply(SESSION, 5, 2) == (1, b"five")


def test_keeping_an_answer_trims_too() -> None:
    log = UpdateLog()
    log.record_reply(SESSION, 1, 1, 1, b"one")
    log.record_reply(SESSION, 2, 2, 2, b"two")
    assert list(log.answers[SESSION].by_request) == [2]


def test_answers_that_came_out_of_order_are_trimmed_by_number() -> None:
    log = UpdateLog()
    for request in (9, 2, 7, 4):
        log.record_reply(SESSION, request, 1, request, b"")
    log.answers[SESSION].trim(5)
    assert sorted(log.answers[SESSION].by_request) == [7, 9]
    log.answers[SESSION].trim(9)
    assert sorted(log.answers[SESSION].by_request) == [9]
    log.answers[SESSION].trim(10)
    assert not log.answers[SESSION].by_request


def test_a_client_that_trims_nothing_is_no_resources_at_the_limit_until_it_trims() -> None:
    log = UpdateLog()
    for request in range(1, ANSWERS_MAX + 1):
        log.record_reply(SESSION, request, 1, request, b"")
    with pytest.raises(RequestError) as caught:
        log.find_reply(SESSION, ANSWERS_MAX + 1, 1)
    assert caught.value.code == codes.NO_RESOURCES
    assert log.find_reply(SESSION + 1, 1, 1) is None
    assert log.find_reply(SESSION, ANSWERS_MAX + 1, 2) is None


def test_a_retry_gets_its_answer_although_the_session_is_at_the_limit() -> None:
    """A request that was applied is done: refusing its retry would say that nothing was."""
    log = UpdateLog()
    for request in range(1, ANSWERS_MAX + 1):
        log.record_reply(SESSION, request, 1, request, b"done")
    assert log.find_reply(SESSION, ANSWERS_MAX, 1) == (ANSWERS_MAX, b"done")
