"""OpenSAF's Python binding for programs that were written for it: `pyosaf.saAis` and `pyosaf.saCkpt`.

`python -m ckpt_client.pyosaf program.py args...` runs a program with these modules in place. A program of
your own calls `install()`. See docs/pyosaf.md.
"""

import sys
from collections.abc import Sequence

from ckpt_client.module_shim import run_program

__all__ = ["install", "run"]


def install() -> None:
    """Put pyosaf's modules in place for this process. A module that was imported already stays."""
    from ckpt_client.pyosaf.modules import make_modules

    for name, module in make_modules().items():
        sys.modules.setdefault(name, module)


def run(program: str, arguments: Sequence[str]) -> None:
    """Run a program file as `__main__`, with pyosaf's modules in place, its own folder first on the path."""
    install()
    run_program(program, arguments)


def __dir__() -> list[str]:
    return sorted(__all__)
