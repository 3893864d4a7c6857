"""`python -m bench.leaving_client KIND ADDRESSES NAME`: one client of `bench.leaving`, as its own process.

It carries out commands, one word per line, and answers each with one line of JSON.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from ckpt_client import AsyncTable, Table
from ckpt_client.saf import AsyncCheckpointService, CheckpointCreationAttributes, CheckpointService

KINDS: Final = ("Table", "AsyncTable", "saf", "saf.aio")
LARGE_BYTES: Final = 8 << 20
SECTIONS: Final = 8
PAUSE_S: Final = 0.01
"""The pause between the calls of a busy client, since a dozen of them share the machine."""

ALL_MODES: Final = 7
TIME_MAX: Final = 2**63 - 1


class Loop:
    """An event loop in its own thread, for the asyncio clients."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()


class Client:
    """One open checkpoint."""

    def __init__(self, kind: str, addresses: str, name: str) -> None:
        self.told = threading.Event()
        """Set when a change is reported."""

        self.told_ns = 0
        """When the last change was reported."""

        self.write: Callable[[str, bytes], Any]
        self.begin_tracking: Callable[[], Any]
        getattr(self, "_open_" + kind.replace(".", "_").lower())(addresses, name)

    def tell(self, *_: Any) -> None:
        """Note a change."""
        self.told_ns = time.monotonic_ns()
        self.told.set()

    def _open_table(self, addresses: str, name: str) -> None:
        table = Table(name, SECTIONS, LARGE_BYTES, 16, address=addresses)
        self.write = table.Write
        self.begin_tracking = lambda: table.track(self.tell)

    def _open_asynctable(self, addresses: str, name: str) -> None:
        run = Loop().run
        table = run(AsyncTable.open(name, SECTIONS, LARGE_BYTES, 16, address=addresses))
        self.write = lambda key, value: run(table.write(key, value))
        self.begin_tracking = lambda: self._follow(run, run(table.track()))

    def _attributes(self) -> CheckpointCreationAttributes:
        return CheckpointCreationAttributes(1, SECTIONS * LARGE_BYTES, TIME_MAX, SECTIONS, LARGE_BYTES, 16)

    def _open_saf(self, addresses: str, name: str) -> None:
        service = CheckpointService.initialize(("B", 2, 2), address=addresses)
        checkpoint = service.checkpoint_open(name, ALL_MODES, self._attributes())
        checkpoint.section_create("k")
        checkpoint.section_create("large")
        self.write = checkpoint.overwrite

        def track() -> None:
            checkpoint.track(self.tell)
            threading.Thread(target=lambda: service.dispatch(3), daemon=True).start()

        self.begin_tracking = track

    def _open_saf_aio(self, addresses: str, name: str) -> None:
        run = Loop().run
        service = run(AsyncCheckpointService.initialize(("B", 2, 2), address=addresses))
        checkpoint = run(service.checkpoint_open(name, ALL_MODES, self._attributes()))
        run(checkpoint.section_create("k"))
        run(checkpoint.section_create("large"))
        self.write = lambda key, value: run(checkpoint.overwrite(key, value))
        self.begin_tracking = lambda: self._follow(run, run(checkpoint.track()))

    def _follow(self, run: Callable[..., Any], changes: Any) -> None:
        async def follow() -> None:
            async for _ in changes:
                self.tell()

        threading.Thread(target=lambda: run(follow()), daemon=True).start()

    # -- commands

    def timed(self, key: str, value: bytes) -> dict[str, Any]:
        """Make one write; return how long it took and how it failed."""
        began = time.monotonic_ns()
        said = ""
        try:
            self.write(key, value)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        return {"seconds": (time.monotonic_ns() - began) / 1e9, "error": said}

    def busy(self, until: threading.Event) -> dict[str, Any]:
        """Write again and again; return the longest write and the first failure."""
        longest, said = 0.0, ""
        while not until.is_set():
            one = self.timed("k", b"v")
            longest, said = max(longest, one["seconds"]), said or one["error"]
            time.sleep(PAUSE_S)
        return {"seconds": longest, "error": said}

    def in_a_child(self) -> dict[str, Any]:
        """Make one write in a forked child."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, json.dumps(self.timed("k", b"v")).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            found: dict[str, Any] = json.loads(pipe.read())
        os.waitpid(child, 0)
        return found


def main() -> None:
    """Carry out commands until standard input ends."""
    client = Client(*sys.argv[1:])
    until, found = threading.Event(), [{"seconds": 0.0, "error": ""}]
    thread = threading.Thread()

    def answer(what: Any) -> None:
        print(json.dumps(what), flush=True)

    def begin(work: Callable[[], Any]) -> None:
        nonlocal thread
        thread = threading.Thread(target=lambda: found.__setitem__(0, work()))
        thread.start()

    answer(client.timed("k", b"v"))
    for line in sys.stdin:
        match line.strip():
            case "call":
                answer(client.timed("k", b"v"))
            case "fork":
                answer(client.in_a_child())
            case "busy":
                until.clear()
                begin(lambda: client.busy(until))
                answer({})
            case "large":
                begin(lambda: client.timed("large", bytes(LARGE_BYTES)))
                answer({})
            case "end":
                until.set()
                thread.join()
                answer(found[0])
            case "track":
                client.begin_tracking()
                answer({})
            case "forget":
                client.told.clear()
                answer({})
            case "told":
                answer({"told_ns": client.told_ns if client.told.wait(10) else 0})
    os._exit(0)


if __name__ == "__main__":
    main()
