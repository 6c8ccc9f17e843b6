"""nnU-Net v2's preprocessed data, ready to train: no planning, no preprocessing, no second copy as raw data."""
