"""A daemon with a bug: `raising_daemon.py BUG VALUE WHERE` and then what `ckptd` takes.

BUG is `apply` or `commit`; WHERE is `everywhere`, `active` or `backup`. The daemon itself has no
hook for this: its core is patched here, in the process that then runs it.
"""

import runpy
import sys

from ckptd.sim.mutants.planted_bugs import apply_raises_on, commit_raises_on

_, bug, value, where, *arguments = sys.argv
places = {
    "everywhere": lambda node_id, as_active: True,
    "active": lambda node_id, as_active: as_active,
    "backup": lambda node_id, as_active: not as_active,
}
raises_on = {"apply": apply_raises_on, "commit": commit_raises_on}[bug]
sys.argv = ["ckptd", *arguments]
with raises_on(value.encode(), places[where]):
    runpy.run_module("ckptd", run_name="__main__")
