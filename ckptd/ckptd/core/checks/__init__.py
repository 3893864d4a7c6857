"""What must be true of a node's state, and the log of its events that a replay reads."""
