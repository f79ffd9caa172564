"""Ask a program what it trains: it is run as far as its call of `steelyard.trial`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from steelyard.errors import ProgramError
from steelyard.study.program.assignment import VARIABLE, Assignment
from steelyard.study.program.command import Program
from steelyard.study.program.declaration import ProgramDeclaration
from steelyard.study.program.process import run


def ask(program: Program) -> ProgramDeclaration:
    """What it declares.

    Raises:
        ProgramError: it cannot be started, fails before it has said so, or never does.
    """
    program.check()
    with tempfile.TemporaryDirectory(prefix="steelyard-") as folder:
        answer, question = Path(folder, "answer.json"), Path(folder, "question.json")
        Assignment("", str(answer)).write(question)
        ending = run(program, {VARIABLE: str(question)})
        if answer.is_file():
            return ProgramDeclaration.from_dict(json.loads(answer.read_text(encoding="utf-8")))
    if ending.code:
        raise ProgramError(f"{ending.how}\nIt was to say what it trains. Its output:\n{ending.output}")
    raise ProgramError(
        f"{program.text} ends without having called steelyard.trial(…): a study asks by that call what there is to "
        "train, and tells by it what to train. (Where it does call it, what starts the program keeps the variable "
        f"{VARIABLE} from it, as sudo, ssh, env -i and docker do.)"
    )
