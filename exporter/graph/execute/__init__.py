"""Running a graph in PyTorch, with its weights read when used."""
