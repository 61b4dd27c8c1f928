"""Reparametrisations in which the posterior is nearly normal, and starts within them."""
