"""Clients that ask real daemons all kinds of things at once, and what they were told, judged afterwards."""
