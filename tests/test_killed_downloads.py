"""Downloads that are killed by SIGKILL at every stage: never a corrupt file in use, and what came is not lost.

``CIERZO_KILL_ROUNDS`` sets how many are killed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import serve

KILLS = max(20, int(os.environ.get("CIERZO_KILL_ROUNDS", "20")))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_downloads_leave_no_corrupt_file(tmp_path: Path) -> None:
    content = random.Random(7).randbytes(3_000_000)
    (tmp_path / "content").write_bytes(content)
    with serve() as hub:
        hub.files["org/model", "model.gguf"] = content
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": ":".join(sys.path)}
        program = str(Path(__file__).with_name("killed_downloads.py"))
        command = [sys.executable, program, str(tmp_path / "content"), str(KILLS), "11"]
        seen = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)
        assert seen.returncode == 0, seen.stderr
        told = json.loads(seen.stdout)
        assert sum(told["kills"].values()) == KILLS
        assert min(told["kills"].values()) >= KILLS // 4
        assert told["kept"] > KILLS // 2
        again = hub.sent / (len(content) * (told["whole"] + 1))
    assert again < 2.5  # from the beginning each time, it would have been much more
    print(f"\n{KILLS} downloads killed ({told['kills']}), {again:.2f} times the bytes of an undisturbed one")
