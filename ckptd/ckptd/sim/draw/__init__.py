"""What a seed draws: the cluster, the mix of faults and work, and the limits of its nodes."""
