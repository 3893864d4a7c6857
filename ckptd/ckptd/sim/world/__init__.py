"""Virtual time, and what stands in it: hosts with clocks and disks, the network, and a register outside."""
