"""Model versions in the bucket."""
