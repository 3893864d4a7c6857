"""The invariants of a node's state, and the log of its events that a replay reads."""
