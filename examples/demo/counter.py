"""A program that must not forget: it counts orders, and the count survives the program.

    python -m examples.demo.counter ADDRESS [HOW-MANY]

It keeps its state in a checkpoint and prints each number once that is acknowledged.
Started again, on any node, it continues where the last one stopped.
"""

import sys
from itertools import count

from ckpt_client import Table

NAME = "orders"
KEY = "processed"


def main() -> None:
    """Count until killed, or HOW-MANY times."""
    with Table(NAME, 10, 1024, 32, address=sys.argv[1]) as table:
        number = int(table.get(KEY, b"0"))
        print(number, flush=True)
        rounds = range(int(sys.argv[2])) if len(sys.argv) > 2 else count()
        for _ in rounds:
            number += 1
            table.Write(KEY, str(number))
            print(number, flush=True)


if __name__ == "__main__":
    main()
