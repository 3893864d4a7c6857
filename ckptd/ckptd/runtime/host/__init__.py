"""The host that the daemon runs on: its disk, processes, memory and service manager."""
