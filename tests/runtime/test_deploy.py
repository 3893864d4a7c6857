"""What `deploy/` holds is loaded by the real model: a sample that went stale fails here."""

import re
import tomllib
from pathlib import Path

import pytest

from ckptd.runtime.config import Config
from ckptd.runtime.config_sources import load_config

DEPLOY = Path(__file__).parents[2] / "deploy"
SAMPLES = {
    "laptop.toml": ("laptop", "single", 0),
    "pair.toml": ("host1", "pair", 1),
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


@pytest.mark.parametrize("name", ["ckptd.service", "Dockerfile", "compose.yaml"])
def test_every_variable_that_is_set_exists(name: str) -> None:
    keys = re.findall(r"CKPTD_DAEMON_([A-Z_]+)", (DEPLOY / name).read_text())
    assert keys
    assert {key.lower() for key in keys} <= set(Config.model_fields)


def test_the_nodes_of_the_compose_file_form_one_cluster() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    peers = re.search(r"CKPTD_DAEMON_PEERS: (\S+)", text)
    assert peers is not None
    node_ids = re.findall(r"CKPTD_DAEMON_NODE_ID: (\S+)", text)
    for node_id in node_ids:
        config = Config(node_id=node_id, peers=peers[1])
        assert {node_id, *config.other_nodes} == set(node_ids)
