"""How weights are stored: integers, palettes, floats in blocks; scales, rounding, reading back."""
