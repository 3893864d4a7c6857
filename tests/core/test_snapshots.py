"""The client's snapshot of a whole checkpoint is of one moment, whoever writes and whatever dies meanwhile.

`Operations.snapshot` is carried out request by request on the virtual cluster. Between its requests another
program changes pairs of sections, which lie in different pages and always change together; nodes die and come
back; the reader's session moves.
"""

from random import Random
from typing import Any

import pytest
from tests.core.client import Opened
from tests.core.cluster import Cluster, three_nodes

from ckpt_client.checkpoint.open_checkpoint import BeginAgain
from ckpt_client.checkpoint.operations import Operations
from ckpt_client.errors import error_of
from ckpt_client.requests.table_requests import Attributes, open_parameters
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.messages import Kind, Op
from ckptd.core.content import replica_content
from ckptd.core.requests import change_feed

SYNC, ASYNC, WEAK = 1, 2, 4
PAIRS = 10
SEEDS = [*range(5), *(pytest.param(seed, marks=pytest.mark.extended) for seed in range(5, 40))]
FAULTS = 2


class Writer:
    """A program that changes pairs of sections, each in one update."""

    def __init__(self, table: Opened, random: Random) -> None:
        self.table = table
        self.random = random
        self.number = 0
        self.acknowledged: dict[int, int] = {}

    def write(self, pair: int) -> None:
        """Write both sections of a pair, or sometimes delete them."""
        keys = b"%02d" % pair, b"%02d" % (pair + PAIRS)
        self.number += 1
        if pair in self.acknowledged and self.random.random() < 0.2:
            self.table.update(*([Op.REMOVE, key] for key in keys))
            del self.acknowledged[pair]
        else:
            self.table.update(*([Op.PUT, key, b"%06d" % self.number, None] for key in keys))
            self.acknowledged[pair] = self.number


class Story:
    """One snapshot, and what happens between its requests."""

    def __init__(self, cluster: Cluster, random: Random, flags: int) -> None:
        self.cluster, self.random = cluster, random
        self.writer = Writer(cluster.client("a").open(flags=flags), random)
        self.reader = cluster.client("b").open_existing()
        self.down = ""
        self.faults_left = FAULTS
        for pair in range(PAIRS):
            self.writer.write(pair)

    def happens(self) -> None:
        """Something may happen now."""
        chance = self.random.random()
        for _ in range(self.random.randrange(4)):
            self.writer.write(self.random.randrange(PAIRS))
        if chance < 0.1 and not self.down and self.faults_left:
            self.faults_left -= 1
            self.down = self.random.choice("abc")
            others = [node_id for node_id in "abc" if node_id != self.down]
            self.cluster.kill(self.down)
            for opened in (self.writer.table, self.reader):
                if opened.client.node_id in ("", self.down):
                    opened.client.move(self.random.choice(others))
        elif chance < 0.2 and self.down:
            self.cluster.restart(self.down)
            self.down = ""
            self.cluster.run(3_000)
        elif chance < 0.3:
            elsewhere = {"a", "b", "c"} - {self.reader.client.node_id, self.down}
            self.reader.client.move(self.random.choice(sorted(elsewhere)))
        self.cluster.run(self.random.choice((0, 1, 5)))

    def snapshot(self) -> dict[bytes, bytes]:
        """Carry the client's operation out."""
        operations: Operations[bytes] = Operations(
            "x", open_parameters("x", None, None, None, 0, 0, False), 10**9
        )
        operations.handle, operations.creation_id = self.reader.handle, 1
        operations.attributes = Attributes(SYNC, 409_600, 0, 100, 4096, 64)
        steps = operations.snapshot()
        try:
            step: Any = next(steps)
            while True:
                if isinstance(step, BeginAgain):
                    step = steps.send(None)
                    continue
                self.happens()
                kind, handle, body = step
                call = self.reader.client.begin(kind, handle, unpack_body(body))
                self.happens()
                answer = self.reader.client.end(call)
                if answer.code == codes.OK:
                    step = steps.send(answer.payload)
                else:
                    step = steps.throw(error_of(answer.code, answer.text, answer.index))
        except StopIteration as end:
            found: dict[bytes, bytes] = end.value
            return found


@pytest.mark.parametrize("flags", [SYNC, ASYNC, WEAK])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_snapshot_is_of_one_moment(seed: int, flags: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed * 8 + flags)
    monkeypatch.setattr(replica_content, "PAGE_BYTES_MAX", random.choice((100, 300)))
    monkeypatch.setattr(change_feed, "PAGE_BYTES_MAX", random.choice((1_000, 10_000)))
    cluster = three_nodes()
    cluster.may_have_two_actives = True
    story = Story(cluster, random, flags)
    for _ in range(3):
        before = dict(story.writer.acknowledged)
        found = story.snapshot()
        for pair in range(PAIRS):
            one, other = found.get(b"%02d" % pair), found.get(b"%02d" % (pair + PAIRS))
            assert one == other, (pair, one, other)
            if flags == SYNC and one is not None:
                assert int(one) >= before.get(pair, 0)
        assert set(found) <= {b"%02d" % key for key in range(2 * PAIRS)}


def test_pages_alone_would_not_be_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scenario above is worth: without the changes after the pages it finds pairs that differ."""
    monkeypatch.setattr(replica_content, "PAGE_BYTES_MAX", 100)
    differ = 0
    for seed in range(5):
        story = Story(three_nodes(), Random(seed), SYNC)
        after, found = None, {}
        while True:
            page = story.reader.call(Kind.ITERATE, 5, 0, after, True).payload
            found.update({row[0]: row[5] for row in page[0]})
            after = page[1]
            if after is None:
                break
            story.writer.write(story.random.randrange(PAIRS))
        differ += sum(
            found.get(b"%02d" % pair) != found.get(b"%02d" % (pair + PAIRS)) for pair in range(PAIRS)
        )
    assert differ > 0
