"""Changes of the view: who is in the next one, who proposes it, and how it is installed.

`next_members` computes who belongs in the next view, `reconfiguration` decides when it is proposed and by
whom, and `view_change` installs it.
"""
