"""The watch over the nodes: after each event it checks from inside what that event may have broken."""
