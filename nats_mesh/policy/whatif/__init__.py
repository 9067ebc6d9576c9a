"""Recorded calls under other policies: what would change."""
