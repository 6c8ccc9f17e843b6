"""``ctmr templates synthesize``: parametric bodies as templates."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from pipelines.cli.console import console, report_errors
from pipelines.cli.templates import DEFAULT_LIBRARY, LibraryOption, templates_app


@templates_app.command()
@report_errors
def synthesize(
    body: Annotated[str, typer.Argument(help="torso or head.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100_000, help="How many people.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="Body seed of the first; the others count up.")] = 0,
    size: Annotated[tuple[int, int, int], typer.Option(metavar="X Y Z", help="Voxels.")] = (192, 192, 192),
    spacing: Annotated[tuple[float, float, float], typer.Option(metavar="X Y Z", help="mm per voxel.")] = (2.0, 2.0, 2.0),
    center: Annotated[str, typer.Option(help="Region or label in the middle; default the middle of the body.")] = "",
    library: LibraryOption = DEFAULT_LIBRARY,
    replace: Annotated[bool, typer.Option("--replace", help="Replace templates of the same id.")] = False,
) -> None:
    """Draw people and keep their label maps in the library, as `<body>-<seed>`.

    Cases can name parametric bodies directly, which needs no library; this is for looking at them, editing them, or
    using them as templates with deformation.

    Example: `ctmr templates synthesize head --count 3 --size 160 192 160 --spacing 1.2 1.2 1.2`
    """
    from ctmr_core.anatomy.grid import Grid
    from ctmr_core.anatomy.templates.library import TemplateLibrary
    from ctmr_core.cases.case import PARAMETRIC_BODIES
    from ctmr_core.cases.label_maps import parametric_body
    from ctmr_core.errors import AnatomyError

    if body not in PARAMETRIC_BODIES:
        raise AnatomyError("unknown parametric body", found=body, allowed=PARAMETRIC_BODIES)
    opened = TemplateLibrary.open(library, create=True)
    for seed in range(first_seed, first_seed + count):
        person = parametric_body(f"parametric:{body}", seed)
        label_map = person.label_map(Grid.centred(size, spacing, person.center_mm(center)))
        row = opened.add(
            f"{body}-{seed}", label_map, source="ctmr-factory, parametric body", licence="Apache-2.0", replace=replace
        )
        console.print(Text(f"{row.id}: {len(row.labels)} labels, {', '.join(row.regions)}, {'x'.join(map(str, row.size))}"))
