"""What the coordinator of a decided view collects from the members, and what they agree to install."""

from ckptd.core.directory.directory import Directory
from ckptd.core.view import View


class Collection:
    """What a coordinator has collected for a decided view, and since when."""

    __slots__ = ("agreed", "complete_ns", "progress_ns", "replies", "since_ns", "view")

    def __init__(self, view: View, since_ns: int) -> None:
        self.view = view
        self.since_ns = since_ns
        self.replies: dict[str, MemberState] = {}
        self.complete_ns = -1
        """When all members had answered; -1 before."""
        self.agreed: Agreed | None = None
        self.progress_ns: dict[str, int] = {}
        """When a member last sent or acknowledged a piece of the directory."""

    def stalled_members(self, before_ns: int) -> list[str]:
        """Return the members that are waited for and have made no progress since `before_ns`."""
        missing = [node_id for node_id in self.view.members if node_id not in self.replies]
        if self.agreed is not None:
            missing = [node_id for node_id in self.agreed.lacking if node_id not in self.agreed.pieces]
        return [n for n in missing if max(self.since_ns, self.progress_ns.get(n, 0)) <= before_ns]

    def on_local_pause(self, pause_ns: int) -> None:
        """Move the times on by a pause of this process: no member kept it waiting then."""
        self.since_ns += pause_ns
        for node_id in self.progress_ns:
            self.progress_ns[node_id] += pause_ns


class Agreed:
    """What the members of a collected view install once those that lack the directory have it."""

    __slots__ = ("base_epoch", "continuous_members", "lacking", "may_have_served", "pieces")

    def __init__(
        self, base_epoch: int, continuous_members: list[str], may_have_served: bool, lacking: list[str]
    ) -> None:
        self.base_epoch = base_epoch
        self.continuous_members = continuous_members
        self.may_have_served = may_have_served
        self.lacking = lacking
        """The members that lack the directory."""
        self.pieces: dict[str, int] = {}
        """In how many pieces each of them got it; -1: as a whole, within INSTALL."""


class MemberState:
    """One member's answer to COLLECT: how far its directory is."""

    __slots__ = (
        "committed_seq",
        "directory",
        "installed_by_earlier_incarnations",
        "installed_epoch",
        "staged",
    )

    def __init__(
        self,
        installed_epoch: int,
        committed_seq: int,
        staged: bytes | None,
        directory: Directory | None,
        installed_by_earlier_incarnations: int,
    ) -> None:
        self.installed_epoch = installed_epoch
        self.installed_by_earlier_incarnations = installed_by_earlier_incarnations
        """The last epoch that earlier incarnations of the member installed."""
        self.committed_seq = committed_seq
        self.staged = staged
        self.directory = directory
        """Only where the coordinator's directory lags behind this member's."""

    @property
    def position(self) -> tuple[int, int]:
        """How advanced the member's directory is: epoch and seq, with what it has staged."""
        return self.installed_epoch, self.committed_seq + (self.staged is not None)
