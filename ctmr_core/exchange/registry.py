"""Finding formats by name: the built-in ones, and those other packages register under ``ctmr.exporters``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points

from pydantic import ValidationError

from ctmr_core.errors import ExchangeError
from ctmr_core.exchange.base import Exporter

GROUP = "ctmr.exporters"
BUILT_IN = {
    "croissant": "ctmr_core.exchange.croissant:CroissantExporter",
    "dicom": "ctmr_core.exchange.dicom.exporter:DicomExporter",
    "huggingface": "ctmr_core.exchange.huggingface:HuggingFaceExporter",
    "monai": "ctmr_core.exchange.monai_datalist:MonaiExporter",
    "nifti": "ctmr_core.exchange.nifti:NiftiExporter",
    "nnunet": "ctmr_core.exchange.nnunet:NnunetExporter",
    "nnunet-preprocessed": "ctmr_core.exchange.nnunet_preprocessed.exporter:NnunetPreprocessedExporter",
    "webdataset": "ctmr_core.exchange.webdataset_shards:WebDatasetExporter",
}


def exporter_names() -> list[str]:
    """The names of every installed format."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def exporter_class(name: str) -> type[Exporter]:
    """The class of a format; ``ExchangeError`` when there is none of that name."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found: type[Exporter] = getattr(import_module(module), attribute)
        return found
    for point in entry_points(group=GROUP):
        if point.name == name:
            loaded: type[Exporter] = point.load()
            return loaded
    raise ExchangeError("unknown format", found=name, allowed=exporter_names(), fix="install the package that provides it")


def load_exporter(name: str, settings: Mapping[str, object] | None = None) -> Exporter:
    """A new exporter. settings: option -> value, text or typed; ``ExchangeError`` names one that is unknown or impossible."""
    kind = exporter_class(name)
    try:
        options = kind.Options.model_validate(dict(settings or {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise ExchangeError(
            f"the {name} format can not be set like that: {first['msg'].removeprefix('Value error, ')}",
            where=f"--set {'.'.join(str(part) for part in first['loc'])}",
            found=first.get("input"),
            allowed=[f"{field} (default {info.default!r})" for field, info in kind.Options.model_fields.items()] or "no options",
        ) from error
    return kind(options)


def needs(library: str, extra: str = "export") -> ExchangeError:
    """The error for a library that is not installed."""
    return ExchangeError(f"this needs {library}", fix=f"pip install 'ctmr-factory[{extra}]'")
