"""The reproduced systems, one file each: experiments, figures of the paper, and how its claim is judged.

To add one, write one file with a `Reproduction` and one row below.
"""

from __future__ import annotations

REPRODUCTIONS = {
    "ema": "steelyard.reproductions.papers.ema_claim",
    "comparison": "steelyard.reproductions.papers.comparison_claim",
    "hydalearn": "steelyard.reproductions.papers.hydalearn_claim",
    "db-mtl": "steelyard.reproductions.papers.db_mtl_claim",
    "amtfl": "steelyard.reproductions.papers.amtfl_claim",
}
