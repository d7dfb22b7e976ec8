"""The front end: capture, graph and plan. It knows no runtime."""
