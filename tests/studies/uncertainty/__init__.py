"""How well engines know the part of a model that is a network: `docs/measurements/uncertainty.md`."""
