"""Clients' requests on their way.

`sessions` accepts them, `turns` says whose turn it is, and `router` brings each to the node that can serve
it.
"""
