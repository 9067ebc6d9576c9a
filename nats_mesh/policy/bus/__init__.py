"""Policies on the bus: their store, and how members follow it."""
