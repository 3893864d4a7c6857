"""The links to the other nodes: who is at an address, which node dials, and how a lost link is restored."""
