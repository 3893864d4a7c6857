"""Every setting of a daemon: where its value comes from, how it is written, and how it is checked."""
