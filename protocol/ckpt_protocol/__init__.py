"""The protocol: what a client and a daemon, or two daemons, send each other.

Codes, flags, limits, frames and messages: data and pure functions only. Nothing in this package does I/O,
reads a clock or draws a random number, so the daemon, the simulator and every client share it unchanged.
"""
