"""Mistakes that a type checker has to find: one in each line that has a comment, and none elsewhere.

The comment names the rule of mypy, then that of pyright. This program is never run: see `check_types.py`.
"""

import aspCheckpoint
import ckpt_client
from ckpt_client import AsyncTable, Table, codecs, errors, saf
from ckptd.testing import LocalCluster


def misspell_names() -> None:
    from ckpt_client import AsyncTabel  # refused: attr-defined, reportAttributeAccessIssue

    print(AsyncTabel.open)  # refused: -, reportUnknownMemberType
    print(ckpt_client.Tabel)  # refused: attr-defined, reportAttributeAccessIssue
    print(errors.SaAisErrTypo)  # refused: attr-defined, reportAttributeAccessIssue
    print(saf.ANY_SLIP)  # refused: attr-defined, reportAttributeAccessIssue
    print(saf.SA_AIS_ERR_TYPO)  # refused: attr-defined, reportAttributeAccessIssue
    print(saf.SA_CKPT_WR_ALL_REPLICA)  # refused: attr-defined, reportAttributeAccessIssue
    print(aspCheckpoint.SA_AIS_ERR_TYPO)  # refused: attr-defined, reportAttributeAccessIssue
    print(aspCheckpoint.Tabel)  # refused: attr-defined, reportAttributeAccessIssue


def misuse_tables(address: str) -> None:
    with Table("orders", 100, 1024, 32, address=address) as table:
        table["k"] = 5  # refused: call-overload, reportArgumentType
        table[5] = b"v"  # refused: call-overload, reportArgumentType
        table.lead(tll=5.0)  # refused: call-arg, reportCallIssue
        print(5 in table)  # refused: comparison-overlap, -
        table.modify("k", lambda value: 5)  # refused: arg-type, reportArgumentType
        table.lock()  # refused: attr-defined, reportAttributeAccessIssue
    table.attributes.flags = 1  # refused: misc, reportAttributeAccessIssue


def misuse_typed_tables(address: str) -> None:
    Table[int]("orders", codec=codecs.text)  # refused: arg-type, reportArgumentType
    with Table("orders", 100, 1024, 32, address=address, codec=codecs.text) as table:
        table["k"] = 5  # refused: assignment, reportArgumentType
        table.Write("k", 5)  # refused: call-overload, reportArgumentType
        table.update({"k": 5})  # refused: arg-type, reportArgumentType
        table["k"].decode()  # refused: attr-defined, reportAttributeAccessIssue
        table.get("k").upper()  # refused: union-attr, reportOptionalMemberAccess
        table.pop("k", 5).upper()  # refused: union-attr, reportAttributeAccessIssue


async def misuse_async_tables(address: str) -> None:
    table = await AsyncTable.open("orders", 100, 1024, 32, address=address)
    await table.write("k", 5)  # refused: call-overload, reportArgumentType
    len(await table.read("k").upper())  # refused: attr-defined, reportAttributeAccessIssue


def misuse_the_saf(address: str) -> None:
    saf.CheckpointService.initialize("B.2.2", address=address)  # refused: arg-type, reportArgumentType
    service = saf.CheckpointService.initialize(address=address)
    checkpoint = service.checkpoint_open("state", saf.SA_CKPT_CHECKPOINT_READ)
    checkpoint.lead(ttl="5 s")  # refused: arg-type, reportArgumentType
    checkpoint.lead(timeout=5)  # refused: call-arg, reportCallIssue
    checkpoint.read([("k", 0)])  # refused: list-item, reportArgumentType
    print(checkpoint.status_get().sections)  # refused: attr-defined, reportAttributeAccessIssue


def misuse_a_cluster(cluster: LocalCluster) -> None:
    cluster.describe("nodes")  # refused: call-overload, reportCallIssue
    print(cluster.describe().mebmers)  # refused: attr-defined, reportAttributeAccessIssue
    print(cluster.describe().members[0].nodeid)  # refused: attr-defined, reportAttributeAccessIssue
    cluster.describe().epoch = 5  # refused: misc, reportAttributeAccessIssue
    cluster.active_node("orders").upper()  # refused: union-attr, reportOptionalMemberAccess
