"""Shared helpers: complete-or-absent files, resumable jobs, optional dependencies and text formatting."""
