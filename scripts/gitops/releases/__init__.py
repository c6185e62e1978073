"""Releases: what runs where, ran before, and may run next."""
