"""The smallest service. Run it: `python examples/hello/app.py`. Call it: `nats-mesh call hello.greet '"Ada"'`."""

from nats_mesh import Service

hello = Service("hello", version="1.0.0")


@hello.endpoint(idempotent=True)
async def greet(name: str = "world") -> str:
    """Greet somebody by name."""
    return f"Hello, {name}!"


if __name__ == "__main__":
    hello.run()
