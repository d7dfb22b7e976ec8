"""Graphs with another face."""
