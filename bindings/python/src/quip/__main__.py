"""`python -m quip` is the same as the `quip` command."""

from ._program import main

main()
