"""Sockets, the handshake and datagrams: what links to clients and links to peers share."""
