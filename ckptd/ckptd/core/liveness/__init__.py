"""Liveness: which nodes live, which incarnation of each counts, and until when this node may serve."""
