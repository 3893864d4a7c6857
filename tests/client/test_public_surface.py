"""The names and signatures that programs use are in a file, so that nobody changes one without noticing."""

import difflib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("public_surface.txt")


def test_the_public_names_and_signatures_are_those_of_the_file() -> None:
    # In a process of its own: other tests put ASP's `Table` into `aspCheckpoint`.
    command = [sys.executable, "-m", "tests.client.public_surface"]
    now = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    golden = GOLDEN.read_text("utf-8").splitlines()
    changes = list(difflib.unified_diff(golden, now.splitlines(), GOLDEN.name, "now", n=0, lineterm=""))
    assert changes == [], "if you mean the change, write the file anew: see `public_surface`"
