"""A copy of the pipeline that a test may edit, with a `lesionforge` of the test's own, and the records of its starts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_pipeline(folder: Path, program: str | None = None) -> Path:
    """Copy what a run reads of the checkout into an existing folder, which is returned; `program` is the script `lesionforge`."""
    for name in ("main.nf", "nextflow.config", "nextflow_schema.json"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "modules", folder / "modules")
    code = Path("python") / "src" / "lesionforge"
    shutil.copytree(ROOT / code, folder / code, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "containers").mkdir(exist_ok=True)
    shutil.copy(ROOT / "containers" / "requirements-cpu.txt", folder / "containers")
    if program:
        path = folder / ".venv" / "bin" / "lesionforge"
        path.parent.mkdir(parents=True)
        path.write_text(program)
        path.chmod(0o755)
    return folder


def start_probe(
    copy: Path, workflow: str, *options: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a workflow of a test's own under the configuration of a copied pipeline; its two outputs are one text."""
    (copy / "probe.nf").write_text(workflow)
    words = [ROOT / "bin" / "nextflow", "run", "probe.nf", "-ansi-log", "false", *options]
    return subprocess.run(words, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=env)


def traces_in(outdir: Path) -> set[Path]:
    """The tables of tasks in an output folder, one for each start; their names sort by time."""
    return set((outdir / "pipeline_info").glob("trace_*.tsv"))
