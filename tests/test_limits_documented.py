"""docs/limits.md names every limit that a node shows, and every setting that is one."""

import re
from pathlib import Path

from tests.core.cluster import nodes
from tests.runtime.fakes import running

from ckptd.runtime.config.model import Config

DOCUMENT = (Path(__file__).parent.parent / "docs" / "limits.md").read_text("utf-8")


def row(name: str) -> str:
    """The line of the table that begins with this name, or has it among several."""
    return next(line for line in DOCUMENT.splitlines() if re.match(rf"\|[^|]*`{name}`[^|]*\|", line))


def test_every_row_of_the_core_has_one_in_the_document() -> None:
    node = nodes("a", memory_bytes_max=10**6).node("a")
    for name, (_, most) in node._limits().items():
        line = row(name)
        if f"{name}_max" in Config.model_fields:
            assert f"`{name}_max`" in line
        else:
            assert f"{most:,}" in line or f"{most // 2**20} MiB" in line or "lane_bytes_max" in line, line


async def test_every_row_of_the_runtime_has_one_in_the_document(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        rows = a.node.transport.limits()
    for name, (_, most) in rows.items():
        line = row(name)
        assert f"`{name}_max`" in line if f"{name}_max" in Config.model_fields else f"{most:,}" in line, line


def test_every_setting_that_is_a_limit_is_in_the_document() -> None:
    settings = {name for name in Config.model_fields if name.endswith("_max")}
    missing = {name for name in settings if f"`{name}`" not in DOCUMENT}
    assert missing == set()
