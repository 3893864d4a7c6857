"""Oracles: after each event of a node they check, from inside, what that event may have broken."""
