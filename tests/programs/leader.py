"""A program that leads a table, and counts in it while it does: `leader.py ADDRESS CHECKPOINT NAME [TTL]`.

It prints "waits", "leads TOKEN" and, once it leads no more, "lost" and how its last write was refused.
"""

import math
import sys

from ckpt_client import LeadershipLost, Table


def main() -> None:
    address, checkpoint, name, *ttl = sys.argv[1:]
    with Table(checkpoint, address=address, timeout=30) as table:
        print("waits", flush=True)
        with table.lead(math.inf, *map(float, ttl), name=name) as leadership:
            number = int(table.get("n", b"0"))
            print("leads", leadership.token, flush=True)
            try:
                while True:
                    number += 1
                    table["n"] = str(number)
                    table["of"] = name
            except LeadershipLost as error:
                print("lost", error, flush=True)


if __name__ == "__main__":
    main()
