"""The five systems, one file each: experiments, figures of the paper, and how its claim is judged.

To add one, write one file with a `Reproduction` and one row below.
"""

from __future__ import annotations

REPRODUCTIONS = {
    "ema": "steelyard.reproductions.papers.ema",
    "comparison": "steelyard.reproductions.papers.comparison",
    "hydalearn": "steelyard.reproductions.papers.hydalearn",
    "db-mtl": "steelyard.reproductions.papers.db_mtl",
    "amtfl": "steelyard.reproductions.papers.amtfl",
}
