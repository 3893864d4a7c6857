"""The client's session, without I/O: requests, the link they go by, and the way to another node."""
