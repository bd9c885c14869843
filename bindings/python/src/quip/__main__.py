"""python -m quip: the same as the console command."""

from ._program import main

main()
