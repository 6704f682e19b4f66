"""How long a new user waits: `cierzo ask` until its first token, against what cannot be avoided.

The bar: the first token comes within 3 times what a Python process needs to import `cierzo.prompt` and open the
tokenizer, plus the time that the engine's process takes to load the model. (The bare import, which leaves the tokenizer
for later, is printed too.) Each is measured in fresh processes, in turn, and the medians are compared, so that a noisy
machine slows both sides.

    python benchmarks/start.py [ROUNDS]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from cierzo import catalog
from cierzo.engines.llamacpp import LlamaCpp
from cierzo.messages import Finish, Message, Sampling
from cierzo.prompt import build

BAR = 3.0


IMPORT = "import cierzo.prompt"
TOKENIZER = "from cierzo.prompt import tokenize; tokenize('Hi', 'v3')"


def seconds_of(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


def seconds_of_load() -> float:
    """From the start of the engine's process until it is ready."""

    async def load() -> float:
        engine = LlamaCpp(catalog.find(catalog.DEMO, Path(tempfile.gettempdir())))
        prompt = await asyncio.to_thread(build, [Message("user", "Hi")], "v3", context=2048)
        try:
            async with aclosing(engine.stream(prompt, Sampling(max_new_tokens=1))) as events:
                async for event in events:
                    if isinstance(event, Finish):
                        return event.timings.load
        finally:
            await engine.close()
        raise SystemExit("the engine did not finish")

    return asyncio.run(load())


def seconds_to_first_token() -> float:
    begin = time.perf_counter()
    command = [sys.executable, "-m", "cierzo", "ask", "--json", "--max-new-tokens", "4", "What is a token?"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        for line in asking.stdout:
            if json.loads(line)["event"] == "token":
                first = time.perf_counter() - begin
                asking.communicate()
                return first
    raise SystemExit("cierzo ask printed no token")


def main(rounds: int) -> int:
    samples: dict[str, list[float]] = {"import": [], "tokenizer": [], "load": [], "ask": []}
    for _ in range(rounds + 1):
        samples["import"].append(seconds_of(IMPORT))
        samples["tokenizer"].append(seconds_of(TOKENIZER))
        samples["load"].append(seconds_of_load())
        samples["ask"].append(seconds_to_first_token())
    medians = {name: statistics.median(values[1:]) for name, values in samples.items()}  # the first warms the disk
    bound = BAR * medians["tokenizer"] + medians["load"]
    bare = BAR * medians["import"] + medians["load"]
    holds = medians["ask"] <= bound
    print(f"import cierzo.prompt      {medians['import']:6.2f} s   (3 times it, and the load: {bare:.2f} s)")
    print(f"… and its tokenizer       {medians['tokenizer']:6.2f} s")
    print(f"load of the demo model    {medians['load']:6.2f} s")
    print(f"first token of cierzo ask {medians['ask']:6.2f} s")
    print(f"bound                     {bound:6.2f} s   {'PASS' if holds else 'FAIL'}  ({rounds} rounds, medians)")
    return not holds


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
