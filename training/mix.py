"""The mean of two runs' weights, where the second went on from the first.

    python -m training.mix FIRST.pt SECOND.pt --share 0.75 --out training/out/demo.pt

Weights between those of two such runs are often better than either (Izmailov et al. 2018, arXiv 1803.05407). Tokens
that only the second has a row for begin in the first as copies of `unseen`.
"""

import argparse
from pathlib import Path

import torch

from training.train import grown


def main() -> None:
    parser = argparse.ArgumentParser(description="Mix the weights of two runs.")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.75, help="of the second")
    parser.add_argument("--out", type=Path, default=Path("training/out/demo.pt"))
    arguments = parser.parse_args()
    first, second = (torch.load(path, weights_only=True) for path in (arguments.first, arguments.second))
    known = len(first["kept"])
    if second["kept"][:known] != first["kept"]:
        parser.error("the second run did not go on from the first: their tokens differ")
    begun = grown(first["weights"], len(second["kept"]) - known, noise=0.0)
    share = arguments.share
    second["weights"] = {name: begun[name].lerp(value, share) for name, value in second["weights"].items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(second, arguments.out)


if __name__ == "__main__":
    main()
