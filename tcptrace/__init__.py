"""Trace TCP connections, from BPF in the kernel to a table, to JSON or to files."""

__version__ = "0.1.0"
