"""What a process that conducts a run need not hold."""

import subprocess
import sys


def test_the_flow_and_the_command_import_no_pytorch():
    """Nor Zarr, nor Matplotlib: stages import them, where they are done."""
    heavy = "{'torch', 'torchvision', 'zarr', 'matplotlib'} & set(sys.modules)"
    program = f"import sys, flows.pipeline, flows.cli, flows.config_file, tasks.status; print(sorted({heavy}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
