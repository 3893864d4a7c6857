"""What decides whether one view may follow another: one compare-and-swap register of the last view.

`local` serves `single` and `pair`, `paxos` serves `majority`, and `etcd` uses a key outside.
`durable_state` is what a node must not forget when it restarts.
"""
