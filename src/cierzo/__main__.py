"""`python -m cierzo` is `cierzo`."""

from cierzo.cli import main

if __name__ == "__main__":
    main()
