"""Configuration of services: typed, kept on the bus, checked before it is stored and again before it is used."""
