"""The pinned programs, and programs that go on running."""
