"""Clients' requests, from their arrival to their answer.

`sessions` accepts them, `turns` decides whose turn it is, and `router` brings each to the node that can serve
it.
"""
