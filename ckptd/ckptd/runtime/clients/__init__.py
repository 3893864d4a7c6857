"""Connections from clients, by stream and by datagram, and what they may take of the node."""
