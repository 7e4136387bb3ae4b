"""Convert what annotation tools export to MaSS13K's layout: `massformer import`."""
