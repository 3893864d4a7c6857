"""What `deploy/` holds is loaded by the real model: a sample that went stale fails here."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.runtime.test_command import PATHS, command, first_line

from ckptd.core.operations.graceful_leave import HAND_OVER_SHARES
from ckptd.runtime.config.model import Config
from ckptd.runtime.config.sources import load_config
from ckptd.runtime.daemon import END_LIMIT_S, LEAVE_MARGIN_S
from ckptd.runtime.errors import EXIT_LAST_COPY

DEPLOY = Path(__file__).parents[2] / "deploy"
README = (DEPLOY / "README.md").read_text("utf-8")
SAMPLES = {
    "etcd.toml": ("host1", "etcd", 1),
    "laptop.toml": ("laptop", "single", 0),
    "pair.toml": ("host1", "pair", 1),
    "pair-with-witness.toml": ("host2", "majority", 2),
    "three-hosts.toml": ("host2", "majority", 2),
}


def test_every_sample_is_known_here() -> None:
    assert {path.name for path in DEPLOY.glob("*.toml")} == set(SAMPLES)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_sample_loads(name: str) -> None:
    node_id, arbiter, peers = SAMPLES[name]
    config = load_config(["--config", str(DEPLOY / name), "--node-id", node_id], {})
    assert config.settings().arbiter_name == arbiter
    assert len(config.other_nodes) == peers
    assert tomllib.loads((DEPLOY / name).read_text())


def test_a_line_that_is_commented_out_is_a_setting_too() -> None:
    for path in DEPLOY.glob("*.toml"):
        for line in path.read_text().splitlines():
            found = re.fullmatch(r"# (\w+) = (.*)", line)
            if found:
                assert found[1] in Config.model_fields, (path.name, line)
                assert tomllib.loads(line[2:])


def test_settings_that_need_explaining_stand_in_some_sample() -> None:
    text = "".join(path.read_text() for path in DEPLOY.glob("*.toml"))
    starts = ("etcd_", "fence_", "record_events", "witnesses", "on_silent_peer", "memory_", "register_")
    for key in Config.model_fields:
        if key.startswith(starts):
            assert re.search(rf"^(# )?{key} = ", text, re.MULTILINE), key


def test_the_witness_of_the_sample_is_one() -> None:
    path = str(DEPLOY / "pair-with-witness.toml")
    assert load_config(["--config", path, "--node-id", "small-box"], {}).settings().witness
    assert not load_config(["--config", path, "--node-id", "host1"], {}).settings().witness


def test_the_fence_hook_is_a_shell_script_that_proves_nothing_unchanged(tmp_path: Path) -> None:
    hook = DEPLOY / "fence-hook.sh"
    assert os.access(hook, os.X_OK)
    subprocess.run(["sh", "-n", str(hook)], check=True)
    assert subprocess.run([str(hook), "host1"], capture_output=True, check=False).returncode != 0
    assert subprocess.run([str(hook)], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("name", ["ckptd.service", "Dockerfile", "compose.yaml"])
def test_every_variable_that_is_set_exists(name: str) -> None:
    keys = re.findall(r"CKPTD_DAEMON_([A-Z_]+)", (DEPLOY / name).read_text())
    assert keys
    assert {key.lower() for key in keys} <= set(Config.model_fields)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("ckptd.service", r"^TimeoutStopSec=(\d+)$"), ("compose.yaml", r"^  stop_grace_period: (\d+)s$")],
)
def test_what_stops_a_daemon_allows_for_its_hand_over(name: str, pattern: str) -> None:
    """Twice `leave_ms` by default: to wait for another node, and to hand over to it. Then the end itself."""
    found = re.search(pattern, (DEPLOY / name).read_text(), re.MULTILINE)
    assert found is not None
    leave_s = HAND_OVER_SHARES * Config.model_fields["leave_ms"].default / 1000
    assert int(found[1]) >= leave_s + LEAVE_MARGIN_S + END_LIMIT_S


def test_a_node_that_was_asked_to_stop_is_not_started_again() -> None:
    assert f"RestartPreventExitStatus={EXIT_LAST_COPY}\n" in (DEPLOY / "ckptd.service").read_text()


def settings_of_unit() -> dict[str, str]:
    lines = (DEPLOY / "ckptd.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))


def test_the_unit_is_restarted_without_end_and_is_watched() -> None:
    """After five quick failures systemd left a node down for good."""
    unit = settings_of_unit()
    assert unit["StartLimitIntervalSec"] == "0"
    assert int(unit["WatchdogSec"]) > END_LIMIT_S  # The last words of a daemon are no standstill.


def test_the_group_that_may_connect_is_one_that_users_can_join() -> None:
    """The socket was for the group of a dynamic user, which nobody can be made a member of."""
    unit = settings_of_unit()
    assert "DynamicUser" not in unit
    assert (
        f"useradd --system --user-group --home-dir /var/lib/ckptd --shell /usr/sbin/nologin {unit['User']}"
        in README
    )
    assert unit["Group"] == unit["User"]


def test_the_unit_is_started_once_everything_that_it_needs_is_there() -> None:
    """The steps enabled the unit before the key existed."""
    steps = README[: README.index("systemctl enable --now")]
    for sample in DEPLOY.glob("*.toml"):
        for path in re.findall(r'^key_file = "(.*)"', sample.read_text(), re.MULTILINE):
            assert re.search(rf"install -m 640 -g ckptd \S+ {path}$", steps, re.MULTILINE), path
    assert "/etc/ckptd/ckptd.toml" in steps
    assert "useradd" in steps


def test_systemd_knows_every_line_of_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not here")
    unit = re.sub("(?m)^ExecStart=.*", "ExecStart=/bin/true", (DEPLOY / "ckptd.service").read_text())
    (tmp_path / "ckptd.service").write_text(unit)
    verify = ["systemd-analyze", "verify", str(tmp_path / "ckptd.service")]
    ended = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert "ckptd.service" not in ended.stdout + ended.stderr


def variables_of_container(node_id: str) -> dict[str, str]:
    """What a container of the compose file has in its environment."""
    pattern = r"(CKPTD_DAEMON_\w+)[=:] ?([^\s\\]+)"
    variables = dict(re.findall(pattern, (DEPLOY / "Dockerfile").read_text()))
    shared, *_ = (DEPLOY / "compose.yaml").read_text().split("NODE_ID: ")
    variables |= dict(re.findall(pattern, shared.partition("services:")[0]))
    return variables | {"CKPTD_DAEMON_NODE_ID": node_id, "CKPTD_DAEMON_KEY": "0123456789abcdef"}


def test_the_image_checks_on_its_own_whether_its_daemon_is_healthy(tmp_path: Path) -> None:
    """There was no HEALTHCHECK, and `ckptctl` could not authenticate in the daemon's container."""
    found = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    check = [sys.executable, "-m", *json.loads(found[1])]
    variables = variables_of_container("a")
    assert variables["CKPTD_DAEMON_SOCKET"].endswith(".sock")
    variables |= {
        "CKPTD_DAEMON_SOCKET": str(tmp_path / "s.sock"),
        "CKPTD_DAEMON_LISTEN": "127.0.0.1:0",
        "CKPTD_DAEMON_STATE_DIR": str(tmp_path / "state"),
    }
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": PATHS, **variables}
    with command(tmp_path, **variables) as process:
        first_line(process)
        # Two nodes are missing, so that it serves nothing: it is healthy all the same.
        ended = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "NOT serving" in ended.stdout
    ended = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1


def test_the_compose_file_has_no_key_that_is_public() -> None:
    assert "CKPTD_DAEMON_KEY: ${CKPTD_KEY:?" in (DEPLOY / "compose.yaml").read_text()


def test_the_nodes_of_the_compose_file_form_one_cluster() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    peers = re.search(r"CKPTD_DAEMON_PEERS: (\S+)", text)
    assert peers is not None
    node_ids = re.findall(r"CKPTD_DAEMON_NODE_ID: (\S+)", text)
    for node_id in node_ids:
        config = Config(node_id=node_id, peers=peers[1])
        assert {node_id, *config.other_nodes} == set(node_ids)
