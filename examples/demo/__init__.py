"""`python -m examples.demo`: three daemons on this machine, a crash, and the state that survives it."""
