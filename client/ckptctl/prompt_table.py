"""A table for commands that read or change something at once: nobody waits for a daemon that is not there."""

from typing import ClassVar

from ckpt_client import Table


class PromptTable(Table):
    """A `Table` whose constructor fails at once if no daemon listens at any address."""

    _waits: ClassVar[bool] = False
