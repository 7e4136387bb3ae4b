"""From photographs to label maps: loading, memory, tiles, and the engine for every model."""
