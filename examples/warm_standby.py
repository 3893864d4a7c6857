"""A program and its standbys: one of them does jobs, and another one continues after its last job when it is gone.

    python examples/warm_standby.py ada 1000        # on one node: it is active
    python examples/warm_standby.py grace 1000      # on another one: it is the standby

Start as many as you like. A standby follows the table while it waits, so it has everything when it takes over. A
program that was paused for too long cannot write any more: `ha.run` then calls `work` again when it leads again.
"""

import sys
import time

from ckpt_client import CheckpointError, Table, ha


def main(name: str, jobs: int) -> None:
    """Wait until no other program is active, then do jobs, one after the other."""
    with Table("warm-standby", 100, 1024, 32) as table:

        def work(state: dict[bytes, bytes], leadership: object) -> None:
            done = int(state.get(b"done", b"0"))
            print(f"{name} is active, and continues after job {done}", flush=True)
            for job in range(done + 1, done + jobs + 1):
                time.sleep(0.05)  # The work.
                table["done"] = str(job)  # LeadershipLost if another program is active.
            print(f"{name} ends after job {done + jobs}", flush=True)

        active = table.leader()
        if active is not None:
            print(f"{name} is the standby of {active.name}", flush=True)
        ha.run(work, table=table, name=name)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "ada", int(sys.argv[2]) if len(sys.argv) > 2 else 100)
    except CheckpointError as error:
        sys.exit(f"the service is lost: {error}")
