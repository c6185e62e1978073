"""The repository: its layout, its policy, and Git."""
