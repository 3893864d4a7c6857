"""`python -m ckpt_client.asp [--strict] program.py [argument ...]`."""

import os
import sys

from ckpt_client.asp import run

USAGE = (
    "usage: python -m ckpt_client.asp [--strict] program.py [argument ...]\n\n"
    "Run a program that was written for ASP. It can import the modules asp, safplusCApi, aspMisc and misc.\n"
    "  --strict   behave as ASP's own modules did, also where ours do better\n"
)


def main() -> int:
    """Run the command line; return exit code 2 if it is wrong."""
    arguments = sys.argv[1:]
    strict = arguments[:1] == ["--strict"]
    if strict:
        del arguments[0]
    if not arguments or arguments[0].startswith("-"):
        wanted = arguments[:1] in (["-h"], ["--help"])
        print(USAGE, end="", file=sys.stdout if wanted else sys.stderr)
        return 0 if wanted else 2
    if not os.path.isfile(arguments[0]):
        print(f"ckpt_client.asp: there is no program {arguments[0]}", file=sys.stderr)
        return 2
    run(arguments[0], arguments[1:], strict)
    return 0


if __name__ == "__main__":
    sys.exit(main())
