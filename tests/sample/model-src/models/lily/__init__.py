"""The lily model: which species a flower is, from four measurements."""
