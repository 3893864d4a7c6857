"""The rules of the checkpoint service: events in, effects out, no I/O and no clock."""
