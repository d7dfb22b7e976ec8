"""What a graph shows of itself: flow, attention, roles, stages, sites."""
