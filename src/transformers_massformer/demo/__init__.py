"""The web page on which photographs are segmented. It needs the extra `demo`."""
