"""Leadership of a table: one program at a time acts, the next one learns it, no late write is accepted."""
