"""Learning from datasets: patches and volumes for training and validation, and a reader for MONAI."""
