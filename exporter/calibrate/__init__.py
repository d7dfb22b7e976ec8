"""Ranges of activations: recorded from the real pipeline over its timesteps."""
