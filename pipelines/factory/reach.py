"""Whether a worker process sees what the driver sees: the same dataset, and the template library."""

from __future__ import annotations

import socket

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.errors import CtmrError, StoreError
from ctmr_core.store import layout
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.storage import Storage, read_json
from pipelines.factory.work import ActorSettings

FIX = "put datasets and template libraries where every node finds them under the same name: a shared file system or a bucket"


def open_dataset(settings: ActorSettings) -> Storage:
    """The storage of the run's dataset; ``StoreError`` when this machine doesn't have it, or has another one under that name."""
    try:
        storage = Dataset.open(settings.dataset).storage
    except (CtmrError, OSError) as error:
        raise _unreachable("dataset", settings.dataset, error) from error
    if settings.lock_token and not _is_locked_by(storage, settings.lock_token):
        raise StoreError(
            f"{socket.gethostname()} has another dataset under this name",
            where=settings.dataset,
            found="a dataset that is not locked by this run",
            allowed="the dataset that the driver has locked",
            fix=FIX,
        )
    return storage


def open_library(settings: ActorSettings) -> TemplateLibrary | None:
    """The template library, None when the run has none; ``StoreError`` when this machine doesn't have it."""
    if not settings.library:
        return None
    try:
        return TemplateLibrary.open(settings.library)
    except (CtmrError, OSError) as error:
        raise _unreachable("template library", settings.library, error) from error


def _is_locked_by(storage: Storage, token: str) -> bool:
    for entry in storage.list(layout.LOCKS):
        try:
            document = read_json(storage, entry.name)
        except FileNotFoundError:
            continue  # a predecessor's, taken away while we look
        if document.get("token") == token:
            return True
    return False


def _unreachable(what: str, name: str, error: Exception) -> StoreError:
    return StoreError(
        f"the {what} can't be reached from {socket.gethostname()}", where=name, found=str(error).splitlines()[0], fix=FIX
    )
