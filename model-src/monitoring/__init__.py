"""Whether what a running version is asked still resembles what it was made for, and whether it still answers well."""
