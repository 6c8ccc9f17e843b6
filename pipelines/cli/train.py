"""``ctmr train``: train networks on a dataset."""

from __future__ import annotations

import typer

train_app = typer.Typer(
    help="Train networks on a dataset: segmentation, and the parts of the MAISI engines.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@train_app.callback()
def _group() -> None:
    """Train networks on a dataset."""
