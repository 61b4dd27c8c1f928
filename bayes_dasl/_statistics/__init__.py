"""Statistics of draws: convergence, importance weights, thinning; distributions that NumPyro lacks,
and in words.
"""
