"""Entry point of `python -m vocable`, `accelerate launch --module vocable` and `torchrun -m vocable`."""

from vocable.cli.main import main

if __name__ == "__main__":
    main()
