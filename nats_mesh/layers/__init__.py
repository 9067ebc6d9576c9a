"""The chain, one file per layer; ``stack.py`` holds the order and the reasons."""
