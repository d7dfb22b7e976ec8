"""What work costs: time, memory and arithmetic, measured or forecast."""
