"""A pipeline folder, a plan and a target become a bundle."""
