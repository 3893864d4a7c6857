"""Virtual time and what lives in it: hosts with clocks and disks, the network, and an external register."""
