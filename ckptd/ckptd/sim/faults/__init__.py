"""Everything that can go wrong: faults, hostile clients, impostors, and an operator in a hurry."""
