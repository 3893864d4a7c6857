"""What one replica holds: its sections, the updates that made them, and its state. It knows no other node."""
