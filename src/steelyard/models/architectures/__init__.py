"""One architecture per file: a class as `Architecture` describes it, made by ``from_problem(problem, tasks, part)``.

To add one, write one file and one row below.
"""

from __future__ import annotations

HARD_SHARING = "hard-sharing"
ARCHITECTURES: dict[str, str] = {
    HARD_SHARING: "steelyard.models.architectures.hard_sharing:HardSharing",
    "mmoe": "steelyard.models.architectures.mmoe:MMoE",
    "cgc": "steelyard.models.architectures.cgc:CGC",
    "ple": "steelyard.models.architectures.ple:PLE",
    "cross-stitch": "steelyard.models.architectures.cross_stitch:CrossStitch",
    "mtan": "steelyard.models.architectures.mtan:MTAN",
    "dselect-k": "steelyard.models.architectures.dselect_k:DSelectK",
    "amtfl": "steelyard.models.architectures.amtfl:AMTFL",
}
