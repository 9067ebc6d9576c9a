"""The tests: `make test` runs them with reduced counts, `make verify` in full."""
