"""Segment photographs on many machines with Ray Data."""
