"""Make jobs import the same Espalier as the Snakefile."""

import os
from pathlib import Path


def prefer_sources(folder: str) -> None:
    """Put a folder first on `PYTHONPATH`, which jobs inherit.

    Snakemake appends the `sys.path` of the Snakefile to that of a job. So an installed Espalier of another version, or
    one that the user's `PYTHONPATH` names, would otherwise run in the jobs of this checkout.

    Args:
        folder: The folder that has the package. Nothing happens if it does not exist: then the Snakefile is not part
            of a checkout, and there is only the installed package.
    """
    if not Path(folder).is_dir():
        return
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *(other for other in others if other not in ("", folder))])
