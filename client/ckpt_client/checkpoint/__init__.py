"""One open checkpoint: its handle, how it is opened again when the handle is lost, and its changes."""
