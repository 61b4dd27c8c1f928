"""Coordinates in which draws move well: last layers of networks given all else, and numbers of
populations; starts without a solve, by matching gradients."""
