"""Score whole data sets, on this machine or on a Ray cluster.

::

    from fertools.scoring import Scoring, score

    summary = score("faces/", Path("predictions.parquet"), Scoring(model="compact"))
"""

from fertools.scoring.output import Summary
from fertools.scoring.scoring import Progress, Scoring, score

__all__ = ["Progress", "Scoring", "Summary", "score"]
