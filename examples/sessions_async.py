"""Sessions of a web service, kept warm on other nodes: the asyncio way.

    python examples/sessions_async.py

A hundred sessions are written at once over one connection; each expires on its own after half an hour.
"""

import asyncio
import json
import time

from ckpt_client import AsyncTable, CheckpointError

HALF_AN_HOUR_NS = 30 * 60 * 10**9


async def remember(table: AsyncTable, user: int) -> None:
    """Write one session."""
    state = json.dumps({"user": user, "basket": []})
    await table.write(f"session-{user}", state, expiration=time.time_ns() + HALF_AN_HOUR_NS)


async def main() -> None:
    """Write the sessions, and read them back as a standby would."""
    async with await AsyncTable.open("sessions", 10_000, 4096, 64) as table:
        await asyncio.gather(*(remember(table, user) for user in range(100)))
        print(len([key async for key in table]), "sessions are kept at", (await table.status()).replicas)
        print("one of them:", json.loads(await table.read("session-42")))
        try:
            await table.read("session-unknown")
        except CheckpointError as error:
            print("another one:", error)


if __name__ == "__main__":
    asyncio.run(main())
