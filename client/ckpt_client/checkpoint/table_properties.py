"""What a `Table` shows of its checkpoint and of itself, without a request. The names are ASP's."""

from typing import Final

from ckpt_client.checkpoint.table_driver import TableDriver
from ckpt_client.codecs import V
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import Attributes

_MILLISECOND_NS: Final = 1_000_000


class TableProperties(TableDriver[V]):
    """The properties of a `Table`."""

    @property
    def sectionExpiration(self) -> int:
        """When written sections expire if a call does not say: ns since 1970; SA_TIME_END: never."""
        return self._operations.section_expiration

    @sectionExpiration.setter
    def sectionExpiration(self, expiration: int) -> None:
        self._operations.section_expiration = expiration

    @property
    def autoActivate(self) -> bool:
        """True if a call that finds no active replica activates the local one."""
        return self._operations.auto_activate

    @autoActivate.setter
    def autoActivate(self, autoActivate: bool) -> None:
        self._operations.auto_activate = autoActivate

    @property
    def attributes(self) -> Attributes:
        """The attributes in force, as this table's open, last `status` or last `resize` showed them."""
        return self._operations.attributes

    @property
    def flags(self) -> int:
        """The creation flags."""
        return self._operations.attributes.flags

    @property
    def retentionMs(self) -> int:
        """How long the checkpoint is kept while no program has it open, in ms; SA_TIME_MAX: for ever."""
        return table_requests.retention_in_ms(self._operations.attributes.retention_ns)

    @property
    def maxSections(self) -> int:
        """The maximum number of sections."""
        return self._operations.attributes.sections_max

    @property
    def maxSectionSizeBytes(self) -> int:
        """The maximum size of a section."""
        return self._operations.attributes.section_bytes_max

    @property
    def maxSectionIdSizeBytes(self) -> int:
        """The maximum length of a section's id."""
        return self._operations.attributes.section_id_bytes_max

    @property
    def svcHdl(self) -> int:
        """The service handle, which is the id of this client's session; 0 once closed."""
        return self._connection.session_id

    @property
    def ckptHdl(self) -> int:
        """The checkpoint handle; 0 once closed."""
        return self._operations.handle

    @property
    def tryAgainDelayMs(self) -> int:
        """The longest pause, in ms, before a request that was answered TRY_AGAIN is repeated."""
        return self._try_again_ms

    @tryAgainDelayMs.setter
    def tryAgainDelayMs(self, delay_ms: int) -> None:
        self._try_again_ms = delay_ms
        self._connection.set_pause_max(delay_ms * _MILLISECOND_NS)

    @property
    def node_id(self) -> str:
        """The node that this table is connected to; "" while it has none."""
        return self._connection.node_id
