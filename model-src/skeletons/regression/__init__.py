"""The NAME model. To be written: what it says, and from what."""
