"""Reads Core ML packages and computes what they say, without Apple's framework."""
