"""No code from a checkpoint is ever run, whatever lies beside its weights."""

import pickle
import shutil

import pytest
from refusal import with_options
from traps import Trap

from stratalens.cli.main import main


@pytest.mark.parametrize("allowed", [[], ["--trust_remote_code"]])
def test_files_beside_the_weights_are_not_run(tiny_arguments, tiny_saes, tmp_path, allowed):
    saes, mark = tmp_path / "saes", tmp_path / "run"
    shutil.copytree(tiny_saes, saes)
    trap = pickle.dumps(Trap(mark))
    pickle.loads(trap)
    assert mark.exists(), "the trap works"
    mark.unlink()
    for folder in [saes, *saes.glob("layers.*")]:
        for name in ("sae.pt", "sae.bin", "pytorch_model.bin", "sae.pkl", "optimizer.pt", "lr_scheduler.pt"):
            (folder / name).write_bytes(trap)
        for name in ("__init__.py", "sae.py", "modeling_sae.py", "conftest.py", "setup.py"):
            (folder / name).write_text(f"open({str(mark)!r}, 'w')\n")
    assert main(["analyze", *with_options(tiny_arguments, {"sae_model": str(saes)}), "--quiet", *allowed]) == 0
    assert not mark.exists()
