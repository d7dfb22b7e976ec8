"""From a graph to a Core ML package."""
