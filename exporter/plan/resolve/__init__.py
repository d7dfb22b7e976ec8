"""What a plan means for one pipeline on one target."""
