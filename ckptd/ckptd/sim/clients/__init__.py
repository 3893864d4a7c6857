"""Simulated clients: their sessions, what they call, and what they make of the answers."""
