"""What would become of a call, by the code that decides it."""
