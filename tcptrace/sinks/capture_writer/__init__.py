"""Packets as a capture file: pcap or pcapng, compressed, one file after the other."""

from tcptrace.sinks.capture_writer.target import numbered_path, parse_target
from tcptrace.sinks.capture_writer.writer import CaptureWriter

__all__ = ["CaptureWriter", "numbered_path", "parse_target"]
