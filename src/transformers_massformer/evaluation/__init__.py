"""Evaluating segmentation models on data in MaSS13K's layout: any of transformers', or label maps from elsewhere."""
