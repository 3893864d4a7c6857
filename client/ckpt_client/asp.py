"""Run a program that was written for ASP: `python -m ckpt_client.asp program.py args...`.

The program finds the modules `asp` (also as `safplusCApi`), `aspMisc` and `misc` beside `aspCheckpoint`, and
its own folder first on the path, as if it had been started by itself. A program of one's own calls
`install()`.
"""

import os
import runpy
import sys
from collections.abc import Sequence

from ckpt_client.asp_module import make_modules


def install() -> None:
    """Put ASP's modules in place for this process. A module that is imported already stays."""
    for name, module in make_modules().items():
        sys.modules.setdefault(name, module)


def run(program: str, arguments: Sequence[str]) -> None:
    """Run a program file as `__main__`, with ASP's modules in place."""
    install()
    sys.argv = [program, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
    runpy.run_path(program, run_name="__main__")


def main() -> int:
    """The command line."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m ckpt_client.asp program.py [argument ...]", file=sys.stderr)
        return 2
    if not os.path.isfile(sys.argv[1]):
        print(f"ckpt_client.asp: there is no program {sys.argv[1]}", file=sys.stderr)
        return 2
    run(sys.argv[1], sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
