"""Tables that grow and shrink, with real daemons."""

import pytest

from ckpt_client import AsyncTable, CheckpointError, Table
from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckptd.testing import LocalCluster

KINDS = (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)


@pytest.mark.parametrize("flags", KINDS)
def test_a_table_that_was_resized_survives_its_nodes(cluster: LocalCluster, name: str, flags: int) -> None:
    addresses = cluster.addresses("a")
    with Table(name, 10, 100, 32, flags, address=addresses) as table:
        table.Write({str(number): "v" for number in range(10)})
        with pytest.raises(CheckpointError) as caught:
            table["one more"] = "v"
        assert caught.value.code == codes.NO_SPACE
        table.resize(20, 1000)
        table["one more"] = bytes(1000)
        table.Synchronize()
        for node in "abc":
            cluster.kill(node)
            assert table["one more"] == bytes(1000)
            cluster.start(node)
            cluster.wait_in_sync(name, 3)
        table.resize(11)
        with pytest.raises(CheckpointError) as caught:
            table["yet another"] = "v"
        assert caught.value.code == codes.NO_SPACE
        with Table(name, 10, 100, 32, flags, address=addresses) as other:
            assert other.attributes[3:] == (11, 1000, 32)


async def test_a_deployment_grows_its_table(cluster: LocalCluster, name: str) -> None:
    """The new version of a program is started while the old one runs."""
    old = await AsyncTable.open(name, 10, 100, 32, address=cluster.address("a"))
    await old.write("k", "v")
    with pytest.raises(CheckpointError) as caught:
        await AsyncTable.open(name, 20, 50, 64, address=cluster.address("b"))
    assert "maxSections is 10, and 20 was asked for" in caught.value.text
    new = await AsyncTable.open(name, 20, 50, 64, address=cluster.address("b"), grow=True)
    assert new.attributes[3:] == (20, 100, 64)
    await old.write("key of the new length".ljust(64), "v")
    assert await new.read("k") == b"v"
    await old.close()
    again = await AsyncTable.open(name, 10, 100, 32, address=cluster.address("c"))
    assert again.max_sections == 20
    await again.close()
    await new.close()


def test_a_standby_with_larger_limits_waits_and_grows_the_table_when_it_leads(
    cluster: LocalCluster, name: str
) -> None:
    """It could not even be started: an open with `grow` was refused while a program led."""
    old = Table(name, 10, 100, 32, address=cluster.address("a"))
    leadership = old.lead()
    with Table(name, 20, 100, 32, address=cluster.address("b"), grow=True) as new:
        assert new.attributes[3:] == (10, 100, 32)
        leadership.resign()
        with new.lead(timeout=20):
            assert new.attributes[3:] == (20, 100, 32)
            new.update({str(number): "v" for number in range(20)})
    old.close()


async def test_an_async_standby_does_so_too(cluster: LocalCluster, name: str) -> None:
    where = cluster.address("a")
    async with AsyncTable.open(name, 10, 100, 32, address=where) as old:
        leadership = await old.lead()
        async with AsyncTable.open(name, 20, 100, 32, address=where, grow=True) as new:
            assert new.max_sections == 10
            await leadership.resign()
            async with new.lead(timeout=20):
                assert new.max_sections == 20
