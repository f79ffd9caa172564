"""One published method per file; nothing in here knows about autograd, ranks or files.

To add a method, write one file and one row below.
"""

from __future__ import annotations

METHODS: dict[str, str] = {
    # reads losses only
    "equal": "steelyard.methods.equal:Equal",
    "random": "steelyard.methods.random:Random",
    "log": "steelyard.methods.log:Log",
    "uw": "steelyard.methods.uw:UW",
    "dwa": "steelyard.methods.dwa:DWA",
    "ema": "steelyard.methods.ema:EMA",
    "famo": "steelyard.methods.famo:FAMO",
    # reads norms or the Gramian
    "inverse-norm": "steelyard.methods.inverse_norm:InverseNorm",
    "mgda": "steelyard.methods.mgda:MGDA",
    "max-norm": "steelyard.methods.db_mtl:MaxNorm",
    "db-mtl": "steelyard.methods.db_mtl:DBMTL",
}

STAGES: dict[str, str] = {
    "log": "steelyard.chain:LogLosses",
    "ema-scale": "steelyard.chain:EMAScale",
    "initial-scale": "steelyard.chain:InitialScale",
}
