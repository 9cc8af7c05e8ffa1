"""Outputs: one module each, all with the interface of `model.Sink`.

A sink reads connection rows and packet records and writes text; it knows nothing of how the rows came about.
"""
