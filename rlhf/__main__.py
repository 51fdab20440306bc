"""`python -m rlhf` is `rlhf`."""

from rlhf.cli import main

main()
