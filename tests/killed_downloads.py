"""A download that is killed, again and again, at every stage; run as a program of its own by `test_killed_downloads`.

It forks a process for each download, since to start one takes longer than the download; the process waits at every
point for leave to go on, and is killed at some of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import filelock  # noqa: F401 - imported here, not in every child
import httpx2
import huggingface_hub.errors
import huggingface_hub.file_download
import huggingface_hub.utils

from cierzo import downloads
from cierzo.downloads import Place, begun, cached, download, fetching, remove

PLACE = Place("org/model", "model.gguf")
FETCHING, CHECKING, CHECKED, PUT = "fcqp"
"""Points at which a download may be killed: at a block that came, at one that was checked, before the whole file gets
its name, and after that, before huggingface_hub has linked it."""


def child(say: int, hear: int) -> None:
    """Download, and wait for leave at every point."""

    def point(name: str) -> None:
        os.write(say, name.encode())
        os.read(hear, 1)

    put = downloads.put

    def pointed(piece: fetching.Piece, place: Path) -> None:
        point(CHECKED)
        put(piece, place)
        point(PUT)

    downloads.put, fetching._PACE = pointed, 0
    download(PLACE, lambda progress: point(progress.phase[0]))


def run(target: str, after: int) -> bool:
    """Download until the point has come so many times; return whether it was killed there, or ended before."""
    (hear, said), (heard, say) = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.close(hear), os.close(say)
        try:
            child(said, heard)
        except BaseException as failed:  # noqa: BLE001
            os.write(2, f"{failed!r}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(said), os.close(heard)
    count, killed = 0, False
    while name := os.read(hear, 1).decode():
        count += name == target
        if count == after:
            os.kill(pid, signal.SIGKILL)
            killed = True
            break
        os.write(say, b".")
    _, status = os.waitpid(pid, 0)
    os.close(hear), os.close(say)
    assert killed or not status, f"the download failed by itself: {status}"
    return killed


def main(content: bytes, kills: int, seed: int) -> dict[str, object]:
    """Kill so many downloads, look after each what a program would find, and let the last one end."""
    rng = random.Random(seed)
    done, whole, kept = dict.fromkeys((FETCHING, CHECKING, CHECKED, PUT), 0), 0, []
    for _ in range(6 * kills):  # a few end before they are killed
        if sum(done.values()) == kills:
            break
        target = min(done, key=lambda point: (done[point], point))
        if run(target, rng.randint(1, 12) if target == FETCHING else rng.randint(1, 3) if target == CHECKING else 1):
            done[target] += 1
        found = cached(PLACE)
        assert found is None or found.read_bytes() == content, "a corrupt file is in use"
        for blob in downloads.folder().glob("*/blobs/*"):
            part = blob.read_bytes()
            assert content.startswith(part), "what is kept is not a beginning of the file"
            assert blob.suffix == ".incomplete" or part == content, "half a file has the name of the whole"
        kept.append(begun(PLACE))
        if found is not None:
            whole += 1
            remove(PLACE)
    assert download(PLACE).read_bytes() == content
    return {"kills": done, "whole": whole, "kept": sum(size > 0 for size in kept)}


if __name__ == "__main__":
    # To read the certificates takes a tenth of a second in every child, and nothing here speaks TLS.
    huggingface_hub.set_client_factory(lambda: httpx2.Client(follow_redirects=True, verify=False))
    print(json.dumps(main(Path(sys.argv[1]).read_bytes(), int(sys.argv[2]), int(sys.argv[3]))))
