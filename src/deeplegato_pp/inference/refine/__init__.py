"""From the network's posterior to the exact one."""
