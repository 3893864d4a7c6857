"""`python -m ckpt_client.pyosaf program.py args...`: run a program that was written for OpenSAF."""

import os
import sys

from ckpt_client.pyosaf import run


def main() -> int:
    """Run the command line; return exit code 2 if it is wrong."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m ckpt_client.pyosaf program.py [argument ...]", file=sys.stderr)
        return 2
    if not os.path.isfile(sys.argv[1]):
        print(f"ckpt_client.pyosaf: there is no program {sys.argv[1]}", file=sys.stderr)
        return 2
    run(sys.argv[1], sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
