"""The live test of the monitoring: see `__main__` for what it does and how it is run."""
