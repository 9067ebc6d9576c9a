"""The command line of nats-mesh: what a person types and sees. Installed as ``nats-mesh`` and ``mesh``."""
