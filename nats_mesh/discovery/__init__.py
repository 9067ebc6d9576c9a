"""Who is there: presence, the registry's feed, and the NATS Services API."""
