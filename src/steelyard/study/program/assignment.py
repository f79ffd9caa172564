"""What a study tells a program, by a file that an environment variable names: torchrun and others hand it down."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import ProgramError
from steelyard.io.typed import typed
from steelyard.study.program.declaration import ProgramDeclaration
from steelyard.study.trial import Trial

VARIABLE = "STEELYARD_TRIAL"
VERSION = 2


@dataclass(frozen=True)
class Assignment:
    """One trial to be trained.

    Attributes:
        run: of this start of the program; one that was killed and goes on has another.
        declaration: what the program said when the study was planned; None where it is to say it.
        answer: the file for what it declares, and for what it reports.
        folder: what survives a restart.
        keep: whether the study takes the network.
    """

    run: str
    answer: str
    declaration: ProgramDeclaration | None = None
    trial: Trial | None = None
    folder: str = ""
    keep: bool = False
    version: int = VERSION

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @classmethod
    def here(cls) -> Assignment | None:
        """What the study that runs this program wants; None where a person does.

        Raises:
            ProgramError: it cannot be read, or another version of Steelyard has written it.
        """
        name = os.environ.get(VARIABLE)
        if not name:
            return None
        try:
            values = json.loads(Path(name).read_text(encoding="utf-8"))
            if values["version"] != VERSION:
                raise ValueError(f"version {values['version']}, and here is {VERSION}")
            assignment: Assignment = typed(cls, values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ProgramError(
                f"what the study says in {name} ({VARIABLE}) cannot be read: {error}. The study and the program need "
                "the same version of Steelyard"
            ) from error
        return assignment
