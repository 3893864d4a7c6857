"""What a table has of a Python mapping."""
