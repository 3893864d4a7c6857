"""Clients' requests, from their arrival to their answer.

`sessions` accepts them, `turn_budget` decides whose turn it is, and `router` brings each to the node that
can serve it.
"""
