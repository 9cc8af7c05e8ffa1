"""Pictures of connections: --sequence, --graph and --ladder.

history -> sequence_numbers -> marks -> decimation -> figures (matplotlib) or terminal (plotille).  What is drawn where
is worked out without either library; only the last step knows them.
"""
