"""Columns of numpy arrays as lines of JSON, compiled: what --json spends its time on."""
