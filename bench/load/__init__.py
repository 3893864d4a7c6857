"""Clients that make all kinds of calls on real daemons at once; their answers are checked afterwards."""
