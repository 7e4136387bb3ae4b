"""Evaluation of segmentation models, or of label maps in a folder, on data in MaSS13K's layout."""
