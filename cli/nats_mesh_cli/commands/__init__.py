"""The commands as typed: arguments, options and help. The work is imported when a command runs."""
