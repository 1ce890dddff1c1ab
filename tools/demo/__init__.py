"""The demo: the whole loop on this machine with a simulated shop."""
