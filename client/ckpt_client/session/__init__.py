"""The client's session, without I/O: its requests, the link that carries them, the move to another node."""
