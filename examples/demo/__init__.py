"""`python -m examples.demo`: three daemons on this machine, a crash, and what is left of the state."""
