"""The command line: chooses and wires, computes nothing."""
