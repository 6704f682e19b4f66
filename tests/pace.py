"""How slow the machine is meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
import time


class Pace:
    """How many times slower than a free machine this one is, 1 at least, while the block runs.

    Bounds in seconds are stretched by it: on a machine that others use too, they would tell of those others.
    """

    def __enter__(self):
        self.factor = 1.0
        self._over = False
        self._thread = threading.Thread(target=self._measure)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over = True
        self._thread.join()

    def _measure(self):
        while True:
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
            self.factor = max(self.factor, (time.monotonic() - began) / 0.15)
            if self._over:
                return
