"""The replicas of one node: their sections, their updates, and the active role.

`local_replicas` keeps them in line with the directory; `resync` brings one up to date.
"""
