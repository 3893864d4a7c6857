"""`ckptctl`: look at a cluster and its checkpoints, and change them, from a shell."""
