"""`python -m linnet`, which torchrun needs."""

from linnet.cli import main

main()
