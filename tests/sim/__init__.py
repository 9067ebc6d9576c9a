"""Seeded simulations in virtual time: the real callers, services and policies on a bus in memory."""
