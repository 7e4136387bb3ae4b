"""Public data sets as their owners distribute them, prepared for training in MaSS13K's layout and seven classes."""
