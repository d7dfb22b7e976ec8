"""What each operation of MIL computes, by subject."""
