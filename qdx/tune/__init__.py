"""What is learned from calls of a model: how its weights are rounded. The result is stored values, which every target reads."""
