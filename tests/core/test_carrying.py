"""Whatever a node may hold, a join and a change of the view can carry: no frame is ever too long.

A client that trimmed no answers once made the first chunk of a join longer than a frame may be. Its receiver
ended the link, the join began again, and the checkpoint was unavailable for good.
"""

import pytest
from tests.core.client import Call
from tests.core.cluster import Cluster, three_nodes, two_nodes

from ckpt_protocol.codes import INVALID_PARAM, NO_MEMORY, NO_RESOURCES, OK
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.framing import FrameDecoder
from ckpt_protocol.limits import ANSWERS_MAX, FRAME_BYTES_MAX
from ckpt_protocol.messages import Kind, Op
from ckptd.core import log as log_of_updates
from ckptd.core.log import Answers

KINDS = (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)
MiB = 1024 * 1024


def largest_frame(cluster: Cluster) -> int:
    """Of all that went over links, in bytes."""
    return max(len(frame.body) for _, _, data in cluster.sent for frame in FrameDecoder().feed(data))


def fill_answers(answers: Answers, body: bytes) -> None:
    """As many as may be kept, and one more: the limit is looked at before it is passed."""
    number = 1
    while not answers.excess:
        answers.keep(number, number, body)
        number += 1


def keep_answers(cluster: Cluster, sessions: int, body: bytes) -> None:
    """Let every replica of `x` remember all that it may for so many sessions."""
    for node in cluster.running():
        log = cluster.replica(node.context.node_id).log
        for session in range(sessions):
            fill_answers(log.answers.setdefault(session + 1, Answers()), body)


@pytest.mark.parametrize("flags", KINDS)
def test_a_join_carries_all_answers_that_may_be_kept(flags: int) -> None:
    """Thirty sessions at their limit, with answers as long as 10,000 generated ids make them: 120 MiB."""
    cluster = three_nodes(chunk_bytes=MiB, log_bytes_max=0)
    table = cluster.client("a").open(flags=flags)
    table.write(b"k", b"v")
    cluster.settle()
    keep_answers(cluster, 30, bytes(100_000))
    kept = {s: dict(answers.by_request) for s, answers in cluster.replica("a").log.answers.items()}
    assert sum(answers.bytes for answers in cluster.replica("a").log.answers.values()) > FRAME_BYTES_MAX
    cluster.kill("c")
    cluster.settle()
    cluster.sent.clear()
    cluster.restart("c")
    cluster.settle()
    mine = cluster.replica("c").log.answers
    assert {session: answers.by_request for session, answers in mine.items()} == kept
    assert largest_frame(cluster) <= 2 * MiB
    cluster.check()


def test_answers_that_come_while_the_join_goes_on_are_kept_and_trimmed() -> None:
    cluster = two_nodes(chunk_bytes=200, chunks_in_flight=1, log_bytes_max=0)
    client = cluster.client("a")
    table = client.open()
    calls = [table.begin_write(b"k%d" % number, bytes(40)) for number in range(60)]
    cluster.until(lambda: all(call.answers for call in calls))
    cluster.kill("b")
    cluster.settle()
    held = table.begin_read(b"missing")  # Not answered as long as its answer is taken away: `lowest` stays.
    cluster.until(lambda: held.answers)
    answers, held.answers = held.answers, []
    for number in range(40):
        table.begin_write(b"k%d" % number, b"more")
    cluster.run(5)
    cluster.restart("b")
    cluster.until(lambda: cluster.kinds_sent("a", "b", table.creation_id).count(Kind.CHUNK) > 5)
    for number in range(20):
        table.begin_write(b"k%d" % number, b"most")
    cluster.run(2)
    held.answers = answers
    table.write(b"k", b"last")
    cluster.settle()
    at = [cluster.replica(node_id).log.answers[client.session] for node_id in "ab"]
    assert at[0].by_request == at[1].by_request
    assert at[0].lowest == at[1].lowest and at[0].bytes == at[1].bytes
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
def test_a_session_that_trims_no_answers_is_refused_at_a_limit_in_bytes(
    flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the active replica, before anything is done. Its retries are still answered, and others write on."""
    monkeypatch.setattr(log_of_updates, "ANSWERS_BYTES_MAX", 5_000)
    cluster = three_nodes()
    client = cluster.client("a")
    table = client.open(flags=flags, sections_max=10_000, section_bytes_max=1)
    made: list[Call] = []
    while len(made) < 2 or made[-1].code == OK:
        made.append(table.begin(Kind.UPDATE, *([Op.CREATE, b"", SA_TIME_END, b""] for _ in range(100))))
        cluster.run(3)
        made[0].answers = []  # As if its answer had not come: `lowest` stays where it is.
    assert len(made) == 6 and made[-1].code == NO_RESOURCES
    assert "none has been trimmed" in made[-1].answers[0].text
    assert table.status()[1] == 500
    assert cluster.client("b").open_existing().try_write(b"k", b"x").code == OK
    client.send(made[0])
    cluster.until(lambda: made[0].answers)
    assert len(made[0].answers[0].payload) == 100
    assert table.try_write(b"k", b"y").code == OK, "it tells that it has the answers"


def test_a_client_cannot_choose_what_its_answer_holds() -> None:
    """It marked ids of its own as generated, and its answers listed them: 58 MB each."""
    cluster = two_nodes()
    table = cluster.client("a").open()
    assert table.try_update([Op.CREATE, b"chosen", SA_TIME_END, b"", True]).code == INVALID_PARAM
    assert table.update([Op.CREATE, b"", SA_TIME_END, b""]) != [b"chosen"]


def test_answers_count_as_memory_and_a_session_that_keeps_many_is_refused_when_that_is_full() -> None:
    cluster = two_nodes(memory_bytes_max=20 * MiB)
    client = cluster.client("a")
    table = client.open()
    table.write(b"k", b"v")
    keep_answers(cluster, 5, bytes(100_000))
    cluster.run(1100)
    assert "memory" in cluster.node("a").context.alarms
    assert table.try_write(b"k", b"w").code == OK, "what does not grow goes on"
    waits = table.begin_write(b"k", b"x")
    cluster.until(lambda: waits.answers)
    waits.answers = []
    cluster.replica("a").log.answers[client.session].keep(waits.number, 3, bytes(100_000))
    assert table.try_write(b"k", b"y").code == NO_MEMORY


def test_the_count_and_the_bytes_of_answers_are_what_is_kept() -> None:
    answers = Answers()
    for number in (5, 3, 9, 3):
        answers.keep(number, 1, b"x" * number)
    assert answers.bytes == sum(60 + number for number in (3, 5, 9))
    answers.trim(4)
    assert answers.bytes == 60 + 5 + 60 + 9
    answers.trim(10)
    assert answers.bytes == 0
    fill_answers(answers, b"")
    assert len(answers.by_request) == ANSWERS_MAX
