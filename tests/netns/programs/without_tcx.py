"""The command as on a kernel without TCX (before Linux 6.6): a guard attaches its programs."""

from tcptrace.__main__ import main
from tcptrace.sources.live import links

links.are_known = lambda ifindex: False
main()
