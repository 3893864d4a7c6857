"""Simulated clients: their sessions, their calls, and how they judge the answers."""
