"""How views follow each other.

`proposal` says who belongs in the next view, `reconfiguration` when it is proposed and by whom, and
`view_change` how it is installed.
"""
