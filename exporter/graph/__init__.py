"""The graph of one traced component, its weights and its reference execution."""
