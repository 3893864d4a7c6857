"""What ckptd costs, each figure next to its floor: `python -m bench --help`."""
