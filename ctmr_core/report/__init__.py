"""Showing a dataset to people: slices, montages and the one-page report."""

from ctmr_core.report.montage import write_montage
from ctmr_core.report.page import write_report
from ctmr_core.report.sample import sample_of

__all__ = ["sample_of", "write_montage", "write_report"]
