"""What a verification measures."""
