"""``python -m nats_mesh_cli``, for where the installed program is not on the path."""

from nats_mesh_cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
