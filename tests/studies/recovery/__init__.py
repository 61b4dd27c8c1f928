"""Known truths, and how often intervals cover them: `docs/recovery.md`."""
