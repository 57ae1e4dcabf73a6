"""`python -m pod_automation` is `pod-automation`."""

import sys

from pod_automation.cli import main

if __name__ == "__main__":
    sys.exit(main())
