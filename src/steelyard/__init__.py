"""Steelyard: balance several losses with one call, and know whether sharing helped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steelyard.balancing.balancer import Balancer
from steelyard.balancing.features_of import features_of
from steelyard.balancing.ledger import Ledger
from steelyard.balancing.losses_of import losses_of
from steelyard.balancing.masked_mean import masked_mean
from steelyard.base.looks import looking
from steelyard.base.observation import Balance, Seen
from steelyard.base.stage import Stage
from steelyard.base.state import State
from steelyard.diagnosis.diagnosis import Diagnosis, diagnose
from steelyard.errors import SteelyardError, SteelyardWarning
from steelyard.method_registry import Chain, make, methods
from steelyard.methods.loss_stages.cr_mogm import CRMOGM
from steelyard.methods.loss_stages.ema_scale import EMAScale
from steelyard.methods.loss_stages.initial_scale import InitialScale
from steelyard.methods.loss_stages.log_losses import LogLosses

if TYPE_CHECKING:
    from steelyard.models.transfer import AsymmetricTransfer as AsymmetricTransfer
    from steelyard.study.program.handle import trial as trial

__version__ = "0.2.0"

__all__ = [
    "CRMOGM",
    "Balance",
    "Balancer",
    "Chain",
    "Diagnosis",
    "EMAScale",
    "InitialScale",
    "Ledger",
    "LogLosses",
    "Seen",
    "Stage",
    "State",
    "SteelyardError",
    "SteelyardWarning",
    "__version__",
    "diagnose",
    "features_of",
    "looking",
    "losses_of",
    "make",
    "masked_mean",
    "methods",
]


def __getattr__(name: str) -> Any:
    # Method classes (steelyard.DBMTL, …) are imported when asked for: the table grows, the import time does not.
    if name == "AsymmetricTransfer":
        from steelyard.models.transfer import AsymmetricTransfer

        return AsymmetricTransfer
    if name == "trial":
        from steelyard.study.program.handle import trial

        return trial
    from steelyard.methods import METHODS

    for target in METHODS.values():
        module, _, attribute = target.partition(":")
        if attribute == name:
            from importlib import import_module

            return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'steelyard' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is public, the classes that are imported when asked for included; and what every module has."""
    from types import ModuleType

    from steelyard.methods import METHODS

    lazy = {"AsymmetricTransfer", "trial", *(target.partition(":")[2] for target in METHODS.values())}
    plain = {name for name, value in globals().items() if isinstance(value, ModuleType) or name.startswith("__")}
    return sorted({*__all__, *lazy, *plain})
