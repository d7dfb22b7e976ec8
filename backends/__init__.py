"""Backends: one folder per runtime that turns a graph into the runtime's files and runs them."""
