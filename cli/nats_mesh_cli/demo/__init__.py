"""`nats-mesh demo`: the whole mesh on this machine, with Bookinfo, load and a live view."""
