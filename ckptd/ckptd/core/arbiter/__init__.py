"""Arbiters: decide whether one view may follow another, by one compare-and-swap register of the last view.

`single_and_pair` serves these two, `paxos` serves `majority`, and `etcd` keeps the register in etcd.
`disk_record` holds what a node must not forget when it restarts; what depends on it waits in `wait_for_disk`.
"""
