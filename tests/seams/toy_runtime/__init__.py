"""A runtime of another package, as small as one can be: a program as JSON, executed by PyTorch one node at a time."""
