"""Coordinates of hybrids: those in which the last layers of networks are nearly normal, given all else."""
