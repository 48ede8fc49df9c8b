"""Statistics of weighted draws: means, quantiles, effective sizes, k-hat; angles."""
