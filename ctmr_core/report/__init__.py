"""Showing a dataset to people: slices, montages and the one-page report."""

from ctmr_core.report.montage import write_montage
from ctmr_core.report.page import write_report

__all__ = ["write_montage", "write_report"]
