"""What can go wrong with a cluster of a test."""


class ClusterError(Exception):
    """The cluster did not get into the requested state in time; the text describes its state."""


class NodeEnded(ClusterError):
    """A daemon that should be running has ended on its own; the text contains the end of its log."""
