"""Does each layer, mechanism and architecture recover a known truth, as often as its intervals say?

`uv run python tests/recovery` fits 50 replicated data sets of every case, goes on where it was stopped, and prints
the table that stands in `docs/recovery.md`.
"""
