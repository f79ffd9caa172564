"""Networks of several tasks: one shared trunk with a head per task, and the architectures that vary it."""

from steelyard.errors import ArchitectureError
from steelyard.models.architectures.hard_sharing import HardSharing
from steelyard.models.base_architecture import Architecture, Part
from steelyard.models.build_network import architecture_names, build
from steelyard.models.transfer import AsymmetricTransfer

__all__ = [
    "Architecture",
    "ArchitectureError",
    "AsymmetricTransfer",
    "HardSharing",
    "Part",
    "architecture_names",
    "build",
]
