"""A program whose every type is known: `mypy --strict` and pyright's strict mode accept each line.

    python typed_sample.py

It also runs, against a cluster of its own. `check_types.py` has both type checkers read it, and
`typed_refused.py`. One function for each part of the interface: a new part gets a function, and its mistakes
a function there.
"""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TypedDict, assert_type

import aspCheckpoint
from ckpt_client import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
    SA_TIME_MAX,
    SA_TIME_ONE_MINUTE,
    AsyncTable,
    Attributes,
    CheckpointDescription,
    CheckpointError,
    CheckpointKeyError,
    ClusterDescription,
    Connection,
    Counts,
    Leader,
    Leadership,
    SaAisError,
    SaAisErrorT,
    SectionChange,
    SectionDescriptor,
    Status,
    Table,
    TrackCallback,
    Tracking,
    VersionConflict,
    codecs,
    errors,
    ha,
    saf,
)
from ckptd.testing import LocalCluster


def print_changes(changes: list[SectionChange]) -> None:
    """A callback of `Table.track`."""
    for change in changes:
        print(change.change.name, change.section_id)


class Order(TypedDict):
    item: str
    count: int


@dataclass
class Seat:
    row: int
    taken: bool


def use_mapping(address: str) -> None:
    with Table("mapping", 100, 1024, 32, address=address) as table:
        assert_type(table, "Table[bytes]")
        mapping: MutableMapping[bytes, bytes] = table
        mapping[b"a"] = b"1"
        table.update({"b": "2"}, c=b"3")
        table.update([("d", bytearray(b"4"))])
        table |= {"e": b"5"}
        assert_type(table.get("a"), bytes | None)
        assert_type(table.get("a", 5), bytes | int)
        assert_type(table.get("a", b""), bytes)
        assert_type(table.Read("a"), bytes)
        assert_type(table.Read(["a", "b"]), bytes | list[bytes])
        assert_type(table.read_many(["a", "b"]), list[bytes])
        assert_type(table.pop("a"), bytes)
        assert_type(table.pop("missing", None), bytes | None)
        assert_type(table.setdefault("a", "1"), bytes)
        assert_type(table.popitem(), tuple[bytes, bytes])
        assert_type(dict(table), dict[bytes, bytes])
        assert_type(table.snapshot(), dict[bytes, bytes])
        assert_type(list(table.items()), list[tuple[bytes, bytes]])
        assert_type(list(table.keys()), list[bytes])
        assert_type(list(table.values()), list[bytes])
        assert_type(table.Write("k", "v", expires_in=30), None)
        assert_type(table.expires_in("k"), float | None)
        assert_type(table.add("l", "v"), str)
        assert_type(table.modify("l", lambda value: (value or b"") + b"1"), bytes | None)
        assert_type(table.modify("n", lambda value: str(int(value or b"0") + 1)), str | None)
        assert_type(table.modify("n", lambda value: value), bytes | None)
        keys = table.keys()
        print("k" in table, b"k" in table, "k" in keys, b"k" in keys)
        table.touch("k", expires_in=5)
        with table.batch() as batch:
            batch["k"] = "v"
            batch.delete("l")
        table.delete_many(["k", b"l"])
        table.clear()


def use_typed_tables(address: str) -> None:
    with Table[Order]("typed", 100, 1024, 32, address=address, codec=codecs.json) as orders:
        assert_type(orders, "Table[Order]")
        orders["1"] = {"item": "tea", "count": 3}
        assert_type(orders["1"], Order)
        assert_type(orders.get("2"), Order | None)
        assert_type(orders.snapshot(), dict[bytes, Order])
        found = orders.get_versioned("1")
        if found is not None:
            assert_type(found.value, Order)
        assert_type(orders.modify("1", lambda order: order), Order | None)
        with orders.track(key="1", values=True) as tracking:
            assert_type(tracking, "Tracking[Order]")
            orders["1"] = {"item": "tea", "count": 4}
            for change in tracking:
                assert_type(change.value, Order | None)
                break
    with Table("seats", 100, 1024, 32, address=address, codec=codecs.pydantic(Seat)) as seats:
        assert_type(seats, "Table[Seat]")
        seats["1"] = Seat(1, False)
        assert_type(seats["1"].taken, bool)
    with Table("names", 100, 1024, 32, address=address, codec=codecs.text) as names:
        names["1"] = "Anna"
        assert_type(names["1"].upper(), str)
    with Table("numbers", 100, 1024, 32, address=address, codec=codecs.msgpack) as numbers:
        numbers["1"] = [1, 2, 3]


def use_table(address: str) -> None:
    with Table("orders", 100, 1024, 32, SA_CKPT_WR_ALL_REPLICAS, address=address) as table:
        assert_type(table.attributes, Attributes)
        callback: TrackCallback = print_changes
        with table.track(callback) as tracking:
            assert_type(tracking, Tracking)
            table["1"] = "tea"
        assert_type(table["1"], bytes)
        assert_type(list(table), list[bytes])
        assert_type(table.status(), Status)
        assert_type(table.counts, Counts)
        for section in table.sections():
            assert_type(section, SectionDescriptor)
            assert section.expiration_ns in (SA_TIME_END, SA_TIME_MAX)
        table.Write("2", b"coffee", expiration=SA_TIME_END - SA_TIME_ONE_MINUTE)
        found = table.get_versioned("1")
        assert found is not None
        assert_type(found.value, bytes)
        assert_type(table.Write("1", b"mate", if_version=found.version), str)
        try:
            table.Write("1", b"water", if_version=found.version)
        except VersionConflict as conflict:
            assert_type(conflict.version, str | None)
        with table.transaction() as transaction:
            transaction.require_absent("3")
            transaction["3"] = b"milk"


def use_leadership(address: str) -> None:
    def serve(state: dict[bytes, bytes], leadership: Leadership) -> int:
        leadership.check()
        return len(state)

    with Table("orders", address=address) as table:
        with table.lead(ttl=5.0) as leadership:
            assert_type(leadership, Leadership)
            assert_type(table.leader(), Leader | None)
        assert_type(ha.run(serve, table=table), int)


async def use_async_table(address: str) -> None:
    flags = SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED
    async with await AsyncTable.open("calls", 100, 1024, 32, flags, address=address) as table:
        await table.activate()
        await table.write("k", b"ringing")
        assert_type(await table.read("k"), bytes)
        assert_type(await table.contains("k"), bool)
        assert_type(await table.modify("n", lambda value: str(int(value or b"0") + 1)), str | None)
        async with table.lead() as leadership:
            assert_type(leadership.token, str)


def use_errors(address: str) -> None:
    try:
        Table("nothing", address=address)
    except CheckpointError as error:
        assert_type(error.aspErrorCode, SaAisError)
        assert isinstance(error.aspErrorCode, errors.SaAisErrNotExist)
        assert error.code == SaAisErrorT.SA_AIS_ERR_NOT_EXIST
    with Table("orders", address=address) as table:
        try:
            del table["nothing"]
        except CheckpointKeyError as error:
            assert_type(error.code, int)


def use_saf(address: str) -> None:
    def opened(invocation: int, checkpoint: saf.Checkpoint | None, error: SaAisErrorT) -> None:
        if checkpoint is None or error != saf.SA_AIS_OK:
            raise SystemExit(f"{invocation}: {error.name}")
        checkpoint.close()

    callbacks = saf.CheckpointCallbacks(checkpoint_open=opened)
    service = saf.CheckpointService.initialize(("B", 2, 2), callbacks, address=address)
    flags = saf.SA_CKPT_CHECKPOINT_CREATE | saf.SA_CKPT_CHECKPOINT_READ | saf.SA_CKPT_CHECKPOINT_WRITE
    attributes = saf.CheckpointCreationAttributes(
        creation_flags=saf.SA_CKPT_WR_ALL_REPLICAS,
        checkpoint_size=1000,
        retention_duration=saf.SA_TIME_END,
        max_sections=10,
        max_section_size=100,
        max_section_id_size=20,
    )
    checkpoint = service.checkpoint_open("safCkpt=state", flags, attributes)
    assert_type(checkpoint.section_create("k", saf.SA_TIME_END, b"1"), bytes)
    assert_type(checkpoint.read([("k", None, 0)]), list[bytes])
    assert_type(checkpoint.status_get().number_of_sections, int)
    with checkpoint.lead(ttl=5.0, name="sample") as leadership:
        assert_type(leadership, Leadership)
    try:
        checkpoint.section_delete("nothing")
    except saf.SaAisErrNotExist as error:
        assert error.code == saf.SA_AIS_ERR_NOT_EXIST
    service.checkpoint_open_async(7, "safCkpt=state", saf.SA_CKPT_CHECKPOINT_READ)
    service.dispatch(saf.SA_DISPATCH_ONE)
    service.finalize()


def use_asp(address: str) -> None:
    flags = aspCheckpoint.SA_CKPT_WR_ALL_REPLICAS
    with aspCheckpoint.Table("sessions", 10, 100, 20, flags, address=address) as table:
        table["k"] = b"v"
        assert_type(table["k"], bytes)
        try:
            table.Read(["nothing"])
        except aspCheckpoint.CheckpointError as error:
            assert_type(error[0], int)
            assert error[0] == aspCheckpoint.SA_AIS_ERR_NOT_EXIST


def use_cluster(cluster: LocalCluster) -> None:
    described = cluster.describe()
    assert_type(described, ClusterDescription)
    assert_type(described.members[0].node_id, str)
    assert_type(described.counters.get("updates", 0), int)
    assert_type([alarm.name for alarm in described.alarms], list[str])
    for checkpoint in cluster.describe("checkpoints"):
        assert_type(checkpoint, CheckpointDescription)
        assert_type(checkpoint.attributes.retention_ns, int)
    assert_type(cluster.checkpoint("orders").replicas[0].in_sync, bool)
    assert_type(cluster.active_node("orders"), str | None)
    cluster.pause(cluster.active_node("orders"))
    cluster.resume("a")
    connection = Connection(cluster.address())
    assert_type(connection.describe("cluster").epoch, int)
    connection.close()


def main() -> None:
    with LocalCluster(1, flags=("--log-level", "warning")) as cluster:
        address = cluster.address()
        use_table(address)
        use_mapping(address)
        use_typed_tables(address)
        use_leadership(address)
        asyncio.run(use_async_table(address))
        use_errors(address)
        use_saf(address)
        use_asp(address)
        use_cluster(cluster)
    print("every type is as written")


if __name__ == "__main__":
    main()
