"""One map of the losses, or of the weights, per file, to be put in front of any method: ``log+mgda``.

To add a loss stage, write one file and one row below.
"""

from __future__ import annotations

STAGES: dict[str, str] = {
    "log": "steelyard.methods.loss_stages.log_losses:LogLosses",
    "ema-scale": "steelyard.methods.loss_stages.ema_scale:EMAScale",
    "initial-scale": "steelyard.methods.loss_stages.initial_scale:InitialScale",
    "cr-mogm": "steelyard.methods.loss_stages.cr_mogm:CRMOGM",
}
