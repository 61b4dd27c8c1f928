"""Statistics of draws: convergence, importance weights, thinning."""
