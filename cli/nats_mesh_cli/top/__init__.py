"""``nats-mesh top``: the mesh in a terminal. State, keys and drawing are pure; ``run`` joins them to the world."""
