"""python -m tcptrace."""

from tcptrace.cli import main

main()
