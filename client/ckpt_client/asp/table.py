"""`aspCheckpoint.Table`: `ckpt_client.Table`, where a write means what it meant in ASP."""

from typing import Any

from ckpt_client import table


class Table(table.Table[bytes]):
    """A checkpoint as in ASP: `ckpt_client.Table`, but its writes mean what they mean in SAF.

    * `Write` of several sections writes from their beginning, and shortens none: the tail of a longer old
      value stays, and no error tells you. So JSON or a pickle is spoiled. Write it with `table[key] = data`
      or `Write(key, data)`, which replace all of it. Source: saCkptCheckpointWrite.
    * A write that says nothing about it leaves a section's expiration as it is.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._operations.writes_as_saf = True
