"""Names that have no address yet, or an old one: they were looked up once, and the node stayed out for good.

The same happened to hashicorp/memberlist (157), consul (733) and redis (8300, 9103).
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.extended


@pytest.mark.parametrize("what", ["late", "moved"])
def test_a_name_is_looked_up_again_until_it_is_right(what: str) -> None:
    probe = ["unshare", "-m", "mount", "--make-rprivate", "/"]
    try:
        able = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("this needs root, and a mount namespace")
    command = ["unshare", "-m", sys.executable, "-m", "tests.e2e.named", what]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
