"""What an operator asks of a node and learns from it: commands, alarms, status, a graceful leave."""
