"""The patient table: a hollow carbon-fibre trough under the back."""

from __future__ import annotations

import numpy as np
import torch

from ctmr_core.engines.tissue.context import RenderContext

_SHELL_HU, _FOAM_HU = -250.0, -930.0  # carbon fibre and foam of common tables
_SHELL_MM, _DEPTH_MM = 3.0, 50.0
_RADIUS_MM = 550.0  # of the trough
_HALF_WIDTH_MM = 215.0
_MATTRESS_MM = 8.0


def add_couch(hu: torch.Tensor, context: RenderContext) -> None:
    """Draw the table into the background behind (-y) the body, along the whole of z; in place."""
    labels = context.labels
    occupied = torch.nonzero((labels > 0).any(dim=2)).to("cpu").numpy()
    if not len(occupied):
        return
    dx, dy, _ = context.spacing
    x = (np.arange(context.size[0]) - occupied[:, 0].mean()) * dx
    y = (np.arange(context.size[1]) - occupied[:, 1].min()) * dy
    top = -_MATTRESS_MM + x**2 / (2 * _RADIUS_MM)
    below = top[:, None] - y[None, :]  # mm below the surface of the table
    within = (below > 0) & (below < _DEPTH_MM) & (np.abs(x) < _HALF_WIDTH_MM)[:, None]
    shell = within & ((below < _SHELL_MM) | (below > _DEPTH_MM - _SHELL_MM))
    plane = np.where(shell, _SHELL_HU, np.where(within, _FOAM_HU, np.nan)).astype(np.float32)
    columns = torch.from_numpy(np.flatnonzero(within.any(axis=0))).to(hu.device)
    if not len(columns):
        return
    first, last = int(columns[0]), int(columns[-1]) + 1
    table = torch.from_numpy(plane[:, first:last]).to(hu.device)[:, :, None]
    free = (labels[:, first:last] == 0) & ~torch.isnan(table)
    hu[:, first:last] = torch.where(free, table, hu[:, first:last])
