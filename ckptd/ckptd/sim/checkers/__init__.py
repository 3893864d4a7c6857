"""Checkers: from outside, they look for answers that no correct service could have given."""
