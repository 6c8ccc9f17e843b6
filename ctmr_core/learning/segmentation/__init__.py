"""Segmentation networks: trained on datasets, recipes and scans, validated on whole volumes, and used."""
