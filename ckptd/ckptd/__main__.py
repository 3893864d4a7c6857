"""`ckptd`, `python -m ckptd`."""

import sys

from ckptd.runtime.command import main

if __name__ == "__main__":
    sys.exit(main())
