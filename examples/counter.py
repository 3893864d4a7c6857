"""A counter that survives the loss of a node: it continues where the last program, on any node, stopped.

    python -m ckpt_client.asp examples/counter.py 10

Written in the style of ASP's programs. Run it, kill the node that it uses, and run it again at another one.
"""

import sys

import aspCheckpoint
from asp import *


def main(steps):
    table = aspCheckpoint.Table("steps", maxRows=1, maxRowSizeBytes=16, maxRowKeySizeBytes=4)
    value = int(table.Read(["value"]) or 0)
    print("the counter is at %d" % value)
    for step in range(steps):
        value += 1
        table.Write("value", str(value))  # returns when every replica has it
        print("counted %d" % value)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
    except aspCheckpoint.CheckpointError as e:
        if e[0] == SA_AIS_ERR_UNAVAILABLE:
            print("no checkpoint service here")
        print(e)
        sys.exit(1)
