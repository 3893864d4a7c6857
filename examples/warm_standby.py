"""A program and its warm standby, which keeps a copy of what the program writes, and takes over when it is gone.

    python examples/warm_standby.py ada 1000        # on one node: it is active
    python examples/warm_standby.py grace 1000      # on another one: it is the standby

The active program renews a section that expires on its own. The standby tracks the checkpoint and reads every
section that changed, so it has everything when the active program's section expires. If its tracking ends, the
standby ends too: a standby with an outdated copy is worse than none, since no operator notices that it is useless.

Run only one standby: two of them could take over at the same moment. A program that was paused for longer than
its section lives finds the other's name there, and ends; between that check and its next write there is a gap.
The section expires by the clock of its node: keep the hosts' clocks together (NTP).
"""

import sys
import time

from ckpt_client import CheckpointError, Table, Tracking

ALIVE_NS = 2 * 10**9


def follow(table: Table, copy: dict[bytes, bytes], changes: Tracking) -> None:
    """Keep the copy up to date until no program is active."""
    if b"active" not in copy:
        return
    for change in changes:  # It raises when the tracking has ended.
        value = table.get(change.section_id)  # Its current value; it may have been deleted since.
        if value is None:
            copy.pop(change.section_id, None)
        else:
            copy[change.section_id] = value
        if b"active" not in copy:
            return


def work(table: Table, copy: dict[bytes, bytes], name: str, jobs: int) -> None:
    """Do jobs, one after the other, beginning after the last one in the copy."""
    done = int(copy.get(b"done", b"0"))
    print(f"{name} is active, and continues after job {done}", flush=True)
    for job in range(done + 1, done + jobs + 1):
        if table.get("active", b"") not in (b"", name.encode()):
            sys.exit(f"{name} was held up for too long: another program is active")
        table.Write("active", name, expiration=time.time_ns() + ALIVE_NS)
        time.sleep(0.05)  # The work.
        table["done"] = str(job)
    table.Delete("active")
    print(f"{name} ends after job {job}", flush=True)


def main(name: str, jobs: int) -> None:
    """Follow the active program, then become it."""
    with Table("warm-standby", 100, 1024, 32) as table:
        with table.track() as changes:  # First track, then read: no change in between is missed.
            copy = table.read_all()
            if b"active" in copy:
                print(f"{name} is the standby of {copy[b'active'].decode()}", flush=True)
            follow(table, copy, changes)
        work(table, copy, name, jobs)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "ada", int(sys.argv[2]) if len(sys.argv) > 2 else 100)
    except CheckpointError as error:
        sys.exit(f"the service is lost: {error}")
