"""What the commands in `scripts/` share: one module per concern, none of them a command."""
