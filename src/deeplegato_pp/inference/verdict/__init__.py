"""Whether a row is to be trusted: goodness of fit, defects, novelty."""
