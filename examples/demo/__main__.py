"""Run the demo and leave no process running."""

import io
import logging
import os
import signal
import sys
import time

from rich.console import Console

from ckptd.testing import LocalCluster
from examples.demo.kinds import measure_kinds
from examples.demo.story import Story


def still_runs(pid: int) -> bool:
    """Return True if a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Run both parts; the exit status is 1 if a promise was broken."""
    # SIGTERM ends the demo as Ctrl-C does: the cluster is closed, which ends the daemons.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Without this the clients' log lines about killed nodes would appear between the rows of the table.
    logging.getLogger("ckpt_client").setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # Not every terminal has our "…".
    console = Console(highlight=False)
    began = time.monotonic()
    console.rule("[bold]A program's state outlives its node")
    with LocalCluster(3, name="demo") as cluster:
        kept = Story(console, cluster).tell()
        console.rule("[bold]What each kind of checkpoint keeps")
        kept &= measure_kinds(console, cluster)
        pids = [cluster.pid(node) for node in cluster.node_ids]
    left = [pid for pid in pids if still_runs(pid)]
    console.print(
        f"All daemons have ended{f', but {left} have not' if left else ''}; {time.monotonic() - began:.0f} s in all. "
        + ("Every promise was kept." if kept else "[bold red]A promise was broken.[/]")
    )
    sys.exit(0 if kept and not left else 1)


if __name__ == "__main__":
    main()
