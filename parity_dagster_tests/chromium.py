"""Where the browser is; apart from what drives it, so that asking loads nothing."""

import os
import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_CHROMIUM = "no Chromium found: install one (Debian: apt-get install chromium), or name one in PARITY_TEST_CHROMIUM"


def find_chromium() -> str | None:
    """Path of the browser that PARITY_TEST_CHROMIUM names, or else of the first one that is installed."""
    given = os.environ.get("PARITY_TEST_CHROMIUM")
    return next(filter(None, map(shutil.which, (given,) if given else PROGRAMS)), None)
