"""Models, their configurations and image processors: the code that travels to the Hub with them."""
