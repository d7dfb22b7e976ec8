"""What every backend must do: cases, and checks of one backend on one case, for ours and for any other's."""
