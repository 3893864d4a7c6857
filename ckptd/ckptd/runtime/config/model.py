"""The settings of a daemon, checked, and the values that follow from them.

Where a value comes from is not the model's business: see `sources`.
"""

import dataclasses
import socket
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, model_validator

from ckptd.core.settings import INTERNAL_SETTINGS, MILLISECOND_NS, Settings
from ckptd.runtime.config.addresses import HostPort, default_socket_path, default_state_directory
from ckptd.runtime.config.checks import RULES
from ckptd.runtime.config.fields import ConfigFields
from ckptd.runtime.host.memory import memory_for_replicas


class Config(ConfigFields):
    """One daemon's settings, which also agree with each other."""

    model_config = ConfigDict(defer_build=False)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for rule in RULES:
            wrong = rule(self)
            if wrong:
                raise ValueError(wrong)
        return self

    @property
    def etcd_register_name(self) -> str:
        """The etcd key that holds the view."""
        return self.etcd_register or f"/ckptd/{self.cluster}/view"

    @property
    def socket_path(self) -> Path | None:
        """The path of the unix socket; None if the node has none."""
        if self.socket == "none":
            return None
        # Absolute, because clients receive it as a URL and have another working directory.
        return Path(self.socket).absolute() if self.socket else default_socket_path()

    @property
    def state_path(self) -> Path:
        """The path of the state directory."""
        return self.state_dir or default_state_directory(self.cluster, self.node_id)

    def advertised(self, port: int) -> HostPort:
        """Return the address that clients on other hosts are given. `port` is the port that is bound."""
        configured = self.advertise or self.peers.get(self.node_id)
        if configured is not None:
            return HostPort(configured.host, configured.port or port)
        return HostPort(socket.gethostname() if self.listen.is_wildcard else self.listen.host, port)

    def settings(self) -> Settings:
        """Return the settings of the core."""
        values: dict[str, Any] = {}
        for name in (field.name for field in dataclasses.fields(Settings)):
            if name == "peers":
                values[name] = tuple(n for n in self.data_nodes if n != self.node_id)
            elif name == "witness":
                values[name] = self.is_witness
            elif name == "witnesses":
                values[name] = self.other_witnesses
            elif name == "memory_bytes_max":
                values[name] = self.memory_bytes_max or memory_for_replicas()
            elif name.endswith("_ns"):
                values[name] = round(getattr(self, f"{name[:-3]}_ms") * MILLISECOND_NS)
            elif name not in INTERNAL_SETTINGS:
                values[name] = getattr(self, name)
        return Settings(**values)
