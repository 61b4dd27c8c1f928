"""Known truths, and how often intervals cover them: `docs/measurements/recovery.md`."""
