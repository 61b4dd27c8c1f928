"""How well the members of real populations are forecast: later times of known ones,
and new ones.
"""
