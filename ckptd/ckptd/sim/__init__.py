"""The core in virtual time: nodes, network and clients in one process, every choice made by one seed."""
