"""Runs the Python of one page, block after block, in one process: `python page_program.py < blocks`.

Reads [[name of the page, first line, program], …] as JSON from standard input. Writes {line: [what a `print`
there printed, …]} as JSON to standard output; or ends with 1, and what went wrong is on standard error.
"""

import ast
import asyncio
import inspect
import io
import json
import os
import sys
from collections import defaultdict
from typing import Any


def main() -> None:
    """Run every block, each after the ones before it."""
    blocks = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    found: list[tuple[int, str]] = []

    def noting_print(*values: object, **named: Any) -> None:
        caller = sys._getframe(1)
        text = io.StringIO()
        print(*values, **{**named, "file": text, "flush": False})
        found.append((caller.f_lineno, text.getvalue().strip()))

    state: dict[str, Any] = {"__name__": "__main__", "print": noting_print}
    with asyncio.Runner() as runner:
        for page, line, program in blocks:
            tree = ast.parse("\n" * (line - 1) + program, page)
            code = compile(tree, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(eval(code, state))
            else:
                exec(code, state)
    printed: dict[int, list[str]] = defaultdict(list)
    for line, text in found:
        printed[line].append(text)
    json.dump(printed, sys.stdout)


main()
