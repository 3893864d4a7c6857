"""Carries out the core's effects other than frames, and reports the results to the driver."""
