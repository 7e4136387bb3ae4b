"""Segment photographs with any model: loading, the engine, tiles, memory and mattes."""
