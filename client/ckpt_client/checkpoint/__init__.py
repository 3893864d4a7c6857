"""One open checkpoint: its handle, how it is opened again when that is lost, and its changes."""
