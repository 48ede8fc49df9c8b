"""Refinement of the network's posterior to the exact posterior."""
