"""Data: the MaSS13K builder, procedural scenes, training transforms and statistics."""
