"""The instance's side: calls that come in, and the life of one running instance."""
