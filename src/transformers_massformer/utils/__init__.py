"""Files that are either complete or absent, and resumable jobs."""
