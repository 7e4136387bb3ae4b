"""Serve a web page that segments photos. Requires the extra `demo`."""
