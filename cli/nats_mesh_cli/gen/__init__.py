"""``gen``: files that other tools read, made from plain data."""
