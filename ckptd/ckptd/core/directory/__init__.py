"""The replicated table of checkpoints, replicas, open handles and sessions.

`validation` turns a request into an operation, `replicator` brings it to every member, `directory` applies
it.
"""
