"""Speed, beside NumPyro, BlackJAX and Stan, and what costs grow with: `docs/measurements/benchmarks.md`."""
