"""Reparametrisations in which the posterior is nearly normal, and start positions in them."""
