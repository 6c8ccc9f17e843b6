"""Exports of datasets to what others read, and (``exchange.importing``) imports of finished image and label pairs."""

from ctmr_core.exchange.base import CaseEntry, ExportCase, Exporter, ExportPlan, ExportUnit, FormatOptions, Selection
from ctmr_core.exchange.driver import ExportSummary, export
from ctmr_core.exchange.registry import exporter_names, load_exporter

__all__ = [
    "CaseEntry",
    "ExportCase",
    "ExportPlan",
    "ExportSummary",
    "ExportUnit",
    "Exporter",
    "FormatOptions",
    "Selection",
    "export",
    "exporter_names",
    "load_exporter",
]
