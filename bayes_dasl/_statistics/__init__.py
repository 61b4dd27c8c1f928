"""Statistics of draws, and distributions that NumPyro lacks or does not describe in words."""
