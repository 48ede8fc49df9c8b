"""Calibration on fresh simulations: measurement, assessment, figures and report.

``run`` writes measurements of galaxies to part files, ``assess`` computes all figures from them,
``figures`` and ``report`` present them, and ``card`` adds them to the model card.
"""
