"""What ckptd costs, each figure beside its floor: `python -m bench --help`."""
