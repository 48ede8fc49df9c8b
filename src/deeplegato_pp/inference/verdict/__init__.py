"""Quality assessment of results: goodness of fit, image defects, novelty."""
