"""The links to the other nodes: who is at an address, who dials, and how a link comes back."""
