"""Real daemons beside a hostile client and a hostile stranger: no node ends, and nobody else suffers."""

import pytest
from tests.fuzz.corpus import record
from tests.fuzz.doors import Doors

from ckpt_client import Table
from ckptd.testing import LocalCluster

KNOCKS = 200


@pytest.mark.parametrize("key", ["", "sesame"], ids=["open", "with a key"])
def test_spoiled_frames_by_every_door_end_no_node_and_change_no_view(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPTD_KEY", key)
    with LocalCluster(3, key=key, name="ckptd") as cluster:
        table = Table("work", 100, 1000, 32, address=cluster.addresses())
        doors = Doors(cluster, record(), seed=7, key=key)
        epoch = cluster.describe()["epoch"]
        for number in range(KNOCKS):
            doors.knock()
            if number % 10 == 0:
                table[f"k{number}"] = b"%d" % number
        assert doors.frames > KNOCKS
        assert cluster.running == cluster.node_ids
        cluster.wait_serving()
        assert cluster.describe()["epoch"] == epoch
        assert table.read_all() == {b"k%d" % number: b"%d" % number for number in range(0, KNOCKS, 10)}
        table.close()
