"""Connections from clients, over streams and datagrams, and limits on what they may take of the node."""
