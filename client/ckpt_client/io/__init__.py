"""The only sockets, event loops and threads of the client."""
