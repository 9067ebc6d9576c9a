"""Tests of policies: what is expected of calls, and what the policies say."""
