"""Equations of a field, each with its data and its study: `from case_studies import lynx_hare`.

A package of its own, beside `bayes_dasl` in a checkout and in a wheel, so that one import serves
both.
"""
