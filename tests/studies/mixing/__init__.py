"""Hybrids over every kind of layer: do chains mix in their unknown functions, and do bands hold the
truth?

Run: `python -m tests.studies.mixing`, or of some problems and fewer data sets
`--only argon --data-sets 5`.
"""
