"""Words, figures and tables as people read them."""
