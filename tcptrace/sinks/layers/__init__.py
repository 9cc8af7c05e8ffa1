"""Packets layer by layer, field by field, with a word on each: for people who learn."""
