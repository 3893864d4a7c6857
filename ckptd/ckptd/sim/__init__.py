"""The core in virtual time: many nodes, a network and clients in one process, every choice made by one seed."""
