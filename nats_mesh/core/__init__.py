"""Pure decisions: no clock, no chance, no I/O of their own; time and randomness are passed in."""
