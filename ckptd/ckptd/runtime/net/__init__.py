"""Sockets, the handshake, and datagrams: what clients and peers have in common."""
