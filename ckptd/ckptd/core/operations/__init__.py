"""What an operator asks of a node and is told of it: commands, alarms, status, a graceful leave."""
