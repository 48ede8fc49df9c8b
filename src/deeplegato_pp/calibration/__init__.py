"""Calibration on fresh simulations: measured, drawn, and told on one page.

``run`` measures galaxies into part files, ``assess`` makes every figure of them, ``figures`` draws
and ``report`` tells what ``assess`` returned, ``card`` writes it beside the weights.
"""
