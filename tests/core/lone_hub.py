"""The node of a part that is tested alone: it records what was decided, and holds no data."""

from ckptd.core.hub import Positions, VoterHub
from ckptd.core.view import View


class LoneHub(VoterHub):
    """Answers what a failure detector or an arbiter asks of its node, as if the node had no other parts."""

    def __init__(self) -> None:
        self.decided: list[View] = []

    def known_views(self) -> tuple[View | None, ...]:
        return ()

    def on_decided(self, view: View) -> None:
        self.decided.append(view)

    def on_superseded(self) -> None:
        pass

    def unreplicated_positions(self, node_id: str) -> Positions:
        return []

    def on_positions_advertised(self, positions: Positions) -> None:
        pass
