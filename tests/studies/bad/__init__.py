"""Cases of bad input for `tests.studies.bad_inputs`: each is a function without arguments.

What it returns is judged: a verdict tells if it has a finding, True is a right answer, and anything
else, as the result of a fit that should have been refused, is a wrong answer without a word.
"""
