"""`python -m vocable`, and what `accelerate launch --module vocable` and `torchrun -m vocable` start."""

from vocable.cli.main import main

if __name__ == "__main__":
    main()
