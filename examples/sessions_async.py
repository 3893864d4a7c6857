"""Sessions of a web service, kept warm on other nodes: the asyncio way.

    python examples/sessions_async.py

A hundred sessions are written at once over one connection; each expires on its own after half an hour.
"""

import asyncio
from typing import TypedDict

from ckpt_client import AsyncTable, CheckpointKeyError, codecs

HALF_AN_HOUR_S = 30 * 60


class Session(TypedDict):
    """What the service remembers of a user."""

    user: int
    basket: list[str]


async def remember(table: AsyncTable[Session], user: int) -> None:
    """Write one session."""
    await table.write(f"session-{user}", {"user": user, "basket": []}, expires_in=HALF_AN_HOUR_S)


async def visit(table: AsyncTable[Session], user: int) -> Session:
    """Read a session; its half hour begins again."""
    await table.touch(f"session-{user}", expires_in=HALF_AN_HOUR_S)
    return await table.read(f"session-{user}")


async def main() -> None:
    """Write the sessions, and read them back as a standby would."""
    async with AsyncTable[Session].open("sessions", 10_000, 4096, 64, codec=codecs.json) as table:
        await asyncio.gather(*(remember(table, user) for user in range(100)))
        print(len([key async for key in table]), "sessions are kept at", (await table.status()).replicas)
        print("one of them:", await visit(table, 42))
        try:
            await visit(table, 1000)
        except CheckpointKeyError as error:
            print("another one:", error)


if __name__ == "__main__":
    asyncio.run(main())
