"""Speed, beside NumPyro, BlackJAX and Stan, and what costs grow with: `docs/benchmarks.md`."""
