"""Which core a node gets by its settings."""

from ckptd.core.make_core import make_core
from ckptd.core.node import Node
from ckptd.core.settings import Settings
from ckptd.core.witness import Witness


def test_a_node_that_holds_data_gets_a_node() -> None:
    assert isinstance(make_core(Settings("a"), 1, b"", 0, 0), Node)


def test_a_witness_gets_a_core_that_only_votes() -> None:
    assert isinstance(make_core(Settings("w", peers=("a", "b"), witness=True), 1, b"", 0, 0), Witness)
