"""Encode what a table asks of the service, and read the answers: pure functions, and values beside them."""
