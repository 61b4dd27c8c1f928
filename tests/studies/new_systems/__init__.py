"""Seven new systems, each with a science that is right and one that lacks a term: is the mixture
ever worse, and where the science fails, is it better and wide enough outside the training data?

Run: `python -m tests.studies.new_systems`, or some systems `--only spring allee`.
"""
