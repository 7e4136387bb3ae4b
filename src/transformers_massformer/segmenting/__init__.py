"""Segmenting photographs into files: which files each one gets, and the steps from a photograph to them."""
