"""Does a hybrid, or a mixture with one, ever forecast worse than its science, and how much better
where that is wrong?

Run: `python -m tests.studies.forecasting`, or of some series `--only lynx_hare pendulum`.
"""
