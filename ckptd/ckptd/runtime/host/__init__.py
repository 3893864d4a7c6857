"""The host under the daemon: its disk, its processes, its memory, its service manager."""
