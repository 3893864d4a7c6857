"""Cores with one rule switched off, or with a planted bug: the checkers have to find each of them."""
