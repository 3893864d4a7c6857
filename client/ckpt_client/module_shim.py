"""Run programs that were written for another service: make the modules they import, and start them."""

import os
import runpy
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


def make_module(name: str, says: str, content: dict[str, Any]) -> ModuleType:
    """Return a module that holds the names in `content`, to be put into `sys.modules`."""
    module = ModuleType(name, says)
    vars(module).update(content)
    return module


def run_program(program: str, arguments: Sequence[str]) -> None:
    """Run a program file as `__main__`, with its own folder first on the path."""
    sys.argv = [program, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
    runpy.run_path(program, run_name="__main__")
