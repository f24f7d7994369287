import json
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from megatron_astro.config.cleaning import CleaningFiles, CleaningRules, SlurmConfig
from megatron_astro.corpus.cleaning import clean_corpus
from megatron_astro.corpus.executors import Phase, run_on_ray, submission_script, submit_to_slurm
from megatron_astro.errors import ConfigError

# Stand-ins for a cluster's commands: sbatch runs the script once for each task of its array, here and now; srun runs what it is given.
SBATCH = """#!/bin/bash
for last; do true; done
export RUN_OFFSET=0
for argument in "$@"; do case $argument in --export=ALL,RUN_OFFSET=*) export RUN_OFFSET=${argument##*=};; esac; done
echo "$@" >> "$CALLS"
if grep -q merge_stats "$last"; then echo "Submitted batch job 7"; exit; fi
array=$(grep -oP '(?<=--array=0-)[0-9]+' "$last")
for ((task = 0; task <= array; task++)); do SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here bash "$last" >> "$CALLS.log" 2>&1 || exit 1; done
case " $* " in *" --parsable "*) echo 7;; *) echo "Submitted batch job 7";; esac
"""
SRUN = '#!/bin/bash\nwhile [ "$1" != launch_pickled_pipeline ]; do shift; done\nexec "$@"\n'
SCONTROL = "#!/bin/bash\necho here\n"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The stand-ins in front of the path; the file of sbatch's calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(script)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


@pytest.fixture
def clean(tmp_path, make_text, write_documents):
    corpus = write_documents(tmp_path / "a.jsonl", [{"id": str(number), "text": make_text(number % 5)} for number in range(8)])

    def start(output, executor="local", **slurm):
        files = CleaningFiles(documents=(corpus,), output=output)
        config = SlurmConfig(partition="cpu", **slurm)
        return clean_corpus(files, CleaningRules(), shard_bytes=5000, executor=executor, workers=1, slurm=config)

    return start


@pytest.mark.slow
def test_slurm_makes_the_same_corpus(tmp_path, cluster, clean):
    clean(tmp_path / "local")
    assert clean(tmp_path / "slurm", "slurm", max_array_size=2) is None
    assert (tmp_path / "slurm" / "documents.jsonl").read_bytes() == (tmp_path / "local" / "documents.jsonl").read_bytes()
    calls = cluster.read_text().splitlines()
    assert [call.split()[0] for call in calls if "dependency" in call]
    report = clean(tmp_path / "slurm", "slurm")  # complete: nothing is submitted again
    assert report.documents_written == 5
    assert cluster.read_text().splitlines() == calls


@pytest.mark.slow
def test_the_scripts_of_a_dry_run_do_the_work(tmp_path, cluster, clean):
    clean(tmp_path / "local")
    clean(tmp_path / "slurm", "slurm", dry_run=True, max_array_size=2, tasks_per_job=2, hours=3, memory_gigabytes=5)
    assert not cluster.exists()
    logs = tmp_path / "slurm" / "work" / "logs"
    script = (logs / "1_documents" / "launch_script.slurm").read_text()
    for line in ("--partition=cpu", "--time=3:00:00", "--mem-per-cpu=5G", "--array=0-1%1"):
        assert f"#SBATCH {line}" in script
    assert json.loads((logs / "2_duplicates" / "ranks_to_run.json").read_text()) == list(range(8))
    subprocess.run(["bash", str(logs / "submit.sh")], check=True)
    assert (tmp_path / "slurm" / "documents.jsonl").read_bytes() == (tmp_path / "local" / "documents.jsonl").read_bytes()
    assert "--dependency=afterok:7" in cluster.read_text()


def test_a_phase_that_is_done_is_not_submitted():
    script = submission_script([(Path("one.slurm"), 0), (Path("two.slurm"), 2)])
    assert script.count("sbatch") == 2
    assert "one.slurm" not in script


def test_without_sbatch_or_a_partition_it_says_so(tmp_path, monkeypatch):
    phase = Phase(name="one", steps=(), num_tasks=1)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="sbatch was not found"):
        submit_to_slurm([phase], tmp_path / "logs", 0, SlurmConfig(partition="cpu"))
    with pytest.raises(ConfigError, match=r"slurm\.partition is empty"):
        submit_to_slurm([phase], tmp_path / "logs", 0, SlurmConfig())


def test_without_ray_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="Ray is not installed"):
        run_on_ray([], tmp_path, 0, SlurmConfig())


@pytest.fixture
def ray_cluster():
    """A Ray cluster of two cores in this machine's memory, that this process is connected to."""
    ray = pytest.importorskip("ray", reason="needs Ray (pip install ray)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray about itself
        ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_ray_makes_the_same_corpus(tmp_path, clean):
    clean(tmp_path / "local")
    report = clean(tmp_path / "ray", "ray", memory_gigabytes=1)
    assert report.documents_written == 5
    assert (tmp_path / "ray" / "documents.jsonl").read_bytes() == (tmp_path / "local" / "documents.jsonl").read_bytes()


def test_a_worker_that_is_killed_is_an_error_and_no_hang(tmp_path, make_text, write_documents):
    """The step kills its own process, as a lack of memory would; it runs in a script, for workers must be able to import it."""
    (tmp_path / "ends.py").write_text(
        "import os\nfrom datatrove.pipeline.base import PipelineStep\n"
        "class Ends(PipelineStep):\n    name, type = 'ends', 'test'\n"
        "    def run(self, data=None, rank=0, world_size=1):\n        os.kill(os.getpid(), 9)\n"
    )
    (tmp_path / "run.py").write_text(
        "from pathlib import Path\nfrom ends import Ends\nfrom megatron_astro.corpus.executors import Phase, run_locally\n"
        "from megatron_astro.errors import DataError\n"
        "if __name__ == '__main__':\n"
        "    try:\n        run_locally([Phase(name='one', steps=(Ends(),), num_tasks=2)], Path('logs'), workers=2)\n"
        "    except DataError as error:\n        print(error)\n"
    )
    done = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("a worker was killed, perhaps for want of memory; give the same command again")
