"""Long measurements and the rows that they left: speed, recovery of known truths, uncertainty of
networks.

A study is a script with its rows in a file of the same name beside it, `keys.py` and `keys.jsonl`.
From the project's folder, `uv run python -m tests.studies.benchmarks.keys` goes on where it was
stopped. Nothing here is collected by pytest.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
