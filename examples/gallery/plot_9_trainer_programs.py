"""
Programs of trainers, for a study
=================================

Lightning, the Hugging Face ``Trainer`` and Accelerate have loops of their own. One call
asks what to train; a callback, or a line after each epoch, reports. A study then runs
each of these programs, ``steelyard compare --methods uw --seeds 3 -- python
lightning_program.py``; here they are run by hand, and train all tasks under the plain
sum.
"""

# %%
import os
import shlex
import subprocess
import sys
from pathlib import Path

# The site is built in this file's folder, where it has no ``__file__``.
EXAMPLES = Path(globals().get("__file__", "here.py")).resolve().parents[1]
path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
alone = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def run(command: str) -> None:
    done = subprocess.run(
        shlex.split(command), cwd=EXAMPLES, env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reports = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    print("\n".join([command, *reports]))


# %%
# Lightning
# ---------
#
# ``TrialCallback`` reports what the model logs on two validation loaders.
#
# .. literalinclude:: ../../examples/lightning_program.py
#    :start-at: TRIAL =
run("python lightning_program.py")

# %%
# Hugging Face
# ------------
#
# ``TrialCallback`` reports what ``compute_metrics`` finds on two evaluation sets.
#
# .. literalinclude:: ../../examples/hf_program.py
#    :start-at: TRIAL =
run("python hf_program.py")

# %%
# Accelerate, on two processes
# ----------------------------
#
# All processes report what they have gathered; ``torchrun`` starts two, which train
# together over gloo. ``accelerate launch`` does, too.
#
# .. literalinclude:: ../../examples/accelerate_program.py
#    :start-at: def main
run("torchrun --nproc-per-node 2 accelerate_program.py")
