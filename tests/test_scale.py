"""Sweeps by workers on Ray: what the local engine makes, whoever is killed on the way."""

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import random_gpt_oss

import workbench as wb
from workbench.experiments import sweep
from workbench.experiments.experts import RouteAround
from workbench.experiments.intervening import intervene
from workbench.scale.rollouts import Stored, identity
from workbench.scale.spent import Spent

QUESTIONS = ("47+85=?", "12+9=?", "31+30+7=?")
PLAN: dict[str, Any] = {"efforts": ("medium", "low"), "samples": 3, "seed": 3, "references": ("132", "21", "68")}
ON_RAY: dict[str, Any] = {"engine": "ray", "workers": 2}


# Ray drops the handles of the processes it has ended without waiting for them.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def no_handles_left() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def whole(tiny: wb.Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one process makes one by one."""
    return sweep(tiny, QUESTIONS, store=tmp_path_factory.mktemp("whole"), **PLAN)


@pytest.fixture(scope="module")
def cluster(by_workers: Any) -> Iterator[None]:
    """A cluster of the caller's own, which takes no part in the start of each sweep."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000)
    yield
    ray.shutdown()


def workers(driver: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error, IndexError):  # gone meanwhile
            if process.cmdline()[0].startswith("ray::_Worker"):
                found.append(process)
    return found


def done(folder: Path) -> dict[str, int]:
    """The traces of a folder, and when each was written."""
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("[0-9a-f]*.safetensors")}


def until(is_so: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def same_bits(a: Any, b: Any) -> None:
    """Every array of every trace, as bytes: NaN is equal to NaN."""
    assert a.rows() == b.rows()
    for row in a.rows():
        ours, theirs = a.store[row["trace"]], b.store[row["trace"]]
        assert ours.arrays.keys() == theirs.arrays.keys()
        for name, array in ours.arrays.items():
            assert array.tobytes() == theirs.arrays[name].tobytes(), name
        assert ours.spans == theirs.spans
        assert ours.meta["sweep"] == theirs.meta["sweep"]


class Killer(threading.Thread):
    """Kills a worker as soon as two rollouts are in the store, and notes who listens where."""

    def __init__(self, store: Path) -> None:
        super().__init__(daemon=True)
        self.store, self.addresses, self.at_death = store, set[str](), dict[str, int]()

    def run(self) -> None:
        until(lambda: len(done(self.store)) >= 2)
        workers(os.getpid())[0].send_signal(signal.SIGKILL)
        self.at_death = done(self.store)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # gone meanwhile
                for connection in process.net_connections("inet"):
                    self.addresses.update(end.ip for end in (connection.laddr, connection.raddr) if end)


@pytest.fixture(scope="module")
def by_workers(tiny: wb.Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A sweep on a cluster of its own, one of whose workers was killed; and what its killer saw."""
    folder = tmp_path_factory.mktemp("ray")
    killer = Killer(folder)
    killer.start()
    found = sweep(tiny, QUESTIONS, store=folder, **PLAN, **ON_RAY)
    killer.join(60)
    return found, killer


def test_a_killed_worker_loses_nothing_and_the_bits_are_those_of_one_process(by_workers: Any, whole: Any) -> None:
    found, killer = by_workers
    assert 2 <= len(killer.at_death) < len(whole)
    assert killer.at_death.items() <= done(found.store.path).items(), "what was done is not done again"
    same_bits(found, whole)
    assert found.spent.workers == 2
    assert found.spent.rollouts == 18
    assert found.spent.tokens == sum(row["completion_tokens"] for row in found.rows())


def test_nothing_is_reached_from_outside(by_workers: Any) -> None:
    assert {"127.0.0.1"} <= {ip.removeprefix("::ffff:") for ip in by_workers[1].addresses} <= {"127.0.0.1", "::1"}


def test_nobody_is_left(by_workers: Any) -> None:
    until(lambda: not workers(os.getpid()), 30)


def test_equal_batches_are_equal_bit_for_bit(cluster: None, tiny: wb.Model, tmp_path: Path, whole: Any) -> None:
    """By the model's name alone too; and batches have the tokens and expert sets of single runs."""
    here = sweep(tiny, QUESTIONS, store=tmp_path / "here", **PLAN, batch_size=4)
    there = sweep("tiny", QUESTIONS, store=tmp_path / "there", **PLAN, batch_size=4, **ON_RAY)
    same_bits(there, here)
    assert here.rows() == whole.rows()
    for row in here.rows():
        ours, single = here.store[row["trace"]], whole.store[row["trace"]]
        np.testing.assert_array_equal(ours.arrays["token_ids"], single.arrays["token_ids"])
        experts = (np.sort(t.arrays["expert_indices"]) for t in (ours, single))
        np.testing.assert_array_equal(*experts)
    assert {trace.provenance.get("batch_size") for trace in there.store} == {4, 2}


def test_a_sweep_that_is_done_starts_no_worker(cluster: None, tiny: wb.Model, whole: Any) -> None:
    """More workers than there are places are refused when they are needed; a model known by name takes one."""
    again = sweep(tiny, QUESTIONS, store=whole.store, **PLAN, engine="ray", workers=99)
    assert again.rows() == whole.rows()
    assert (again.spent.workers, str(again.spent)) == (0, "nothing was missing")
    by_name = sweep("tiny", QUESTIONS, store=whole.store, **PLAN, **ON_RAY)
    assert (by_name.spent.workers, str(by_name.spent)) == (1, "nothing was missing")


def test_a_folder_under_another_name_is_the_same_model(
    cluster: None, odd: wb.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd.hf.save_pretrained(tmp_path / "model")
    odd.tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    model = wb.load("model", device="cpu")
    found = sweep(model, ["1+1=?"], ("low",), 2, store="traces", max_new_tokens=5, engine="ray", workers=1)
    assert [trace.provenance["model"] for trace in found.store] == ["model", "model"]
    same_bits(found, sweep(model, ["1+1=?"], ("low",), 2, store="here", max_new_tokens=5))
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(wb.ModelError, match="cannot load"):
        sweep("model", ["1+1=?"], ("low",), store="traces", max_new_tokens=5, engine="ray", workers=1)


def test_a_batch_that_kills_every_worker_is_given_up(cluster: None, tiny: wb.Model, tmp_path: Path) -> None:
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.is_set():
            for worker in workers(os.getpid()):
                with suppress(psutil.Error, IndexError):
                    if ".run" in worker.cmdline()[0]:
                        worker.send_signal(signal.SIGKILL)
            time.sleep(0.001)

    killer = threading.Thread(target=kill_all, daemon=True)
    killer.start()
    expected = r"3 workers died, one after the other, at the same 8 rollouts, .* question '47\+85=\?' at effort high\."
    try:
        with pytest.raises(wb.ModelError, match=expected):
            sweep(tiny, ["47+85=?"], ("high",), 8, store=tmp_path, batch_size=8, engine="ray", workers=1)
    finally:
        stop.set()
        killer.join()


def test_ctrl_c_ends_the_workers_and_keeps_what_is_done(cluster: None, tiny: wb.Model, tmp_path: Path) -> None:
    def interrupt() -> None:
        until(lambda: len(done(tmp_path)) >= 1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        sweep(tiny, QUESTIONS, store=tmp_path, **PLAN, **ON_RAY)
    told = re.fullmatch(
        r"interrupted with (\d+) of 18 rollouts done; the same call goes on from there", str(caught.value)
    )
    assert told, caught.value
    assert 1 <= int(told[1]) < 18
    until(lambda: not workers(os.getpid()), 30)
    names = {path.name for path in tmp_path.iterdir()}
    assert len([wb.open_trace(tmp_path / name) for name in names if not name.startswith(".")]) >= int(told[1])


PROGRAM = """
import torch
torch.set_num_threads(1)
import workbench as wb
from workbench.experiments import sweep
sweep("tiny", {questions!r}, store={store!r}, **{plan!r})
"""


def test_a_killed_driver_is_gone_on_with(tiny: wb.Model, tmp_path: Path, whole: Any) -> None:
    code = PROGRAM.format(questions=QUESTIONS, store=str(tmp_path), plan={**PLAN, **ON_RAY})
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as driver:
        until(lambda: len(done(tmp_path)) >= 1)
        theirs = workers(driver.pid)
        driver.kill()
    assert len(theirs) == 2
    _, alive = psutil.wait_procs(theirs, timeout=60)
    assert not alive, "workers end with their driver"
    finished = done(tmp_path)
    assert 1 <= len(finished) < 18
    resumed = sweep(tiny, QUESTIONS, store=tmp_path, **PLAN)
    assert finished.items() <= done(tmp_path).items()
    assert resumed.spent.rollouts == 18 - len(finished)
    same_bits(resumed, whole)


def test_what_cannot_run_is_refused(cluster: None, tiny: wb.Model, tmp_path: Path) -> None:
    store = tmp_path / "new"

    def refused(message: str, model: Any = tiny, **options: Any) -> None:
        with pytest.raises(wb.ModelError, match=message):
            sweep(model, ["1+1=?"], ("low",), store=store, **options)

    refused("expected an engine of local, ray, got 'spark'", engine="spark")
    refused("engine='local' is this process alone, got workers=2; for workers take engine='ray'", workers=2)
    refused("expected a batch of at least 1 rollout, got 0", batch_size=0)
    refused("unknown model 'nope'", "nope", engine="ray")
    assert not store.exists()
    refused("expected 1 to 2 workers, one for each CPU that Ray has, got 3", engine="ray", workers=3)
    memory = wb.load(random_gpt_oss(tiny.config.vocab_size), tokenizer=tiny.tokenizer)
    refused(
        "GptOssForCausalLM is only in this process's memory. Save it .* with save_pretrained", memory, engine="ray"
    )
    refused(
        "tiny runs elsewhere and needs no workers here; .* engine='local'",
        wb.load("tiny", remote="local"),
        engine="ray",
    )
    with intervene(tiny, RouteAround({1: [3]})):
        refused("an intervention changes the model in this process only; .* engine='local'", engine="ray")


def test_a_cluster_that_would_listen_to_others_is_not_started(tmp_path: Path) -> None:
    code = (
        "import ray, workbench as wb\n"
        "try:\n"
        f"    wb.sweep('tiny', ['1+1=?'], ('low',), store={str(tmp_path)!r}, engine='ray')\n"
        "except wb.ModelError as error: print(error)\n"
        "print(ray.is_initialized())\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert "Ray was imported before the sweep, so a cluster started now would listen to other machines." in run.stdout
    assert run.stdout.splitlines()[-1] == "False"


def test_a_model_elsewhere_is_told_by_where_it_runs() -> None:
    there = wb.load("tiny", remote="http://127.0.0.1:9")
    known = identity(there)
    assert known == {
        "model": "tiny",
        "revision": None,
        "dtype": known["dtype"],
        "weights": "not available",
        "remote": "http://127.0.0.1:9",
    }


def test_models_of_two_servers_are_two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    there = wb.load("tiny", remote=True)
    known = [identity(there)]
    for host in ("https://one.example", "https://two.example"):
        monkeypatch.setenv("NDIF_HOST", host)
        known.append(identity(there))
    assert [each["remote"] for each in known] == ["https://api.ndif.us", "https://one.example", "https://two.example"]


def test_cost_is_counted_and_projected() -> None:
    spent = Spent(workers=2, left=40)
    assert (spent.progress(), str(spent)) == ("", "nothing was missing")
    spent.add(Stored("a", 100, 3.0))
    spent.add(Stored("b", 500, 6.0))
    spent.seconds = 5.0
    assert (spent.projected_tokens, spent.projected_worker_seconds, spent.rate) == (12_000, 180, 120)
    assert spent.progress() == "600 of about 12,000 tokens, 120 tokens/s, 0.0025 of about 0.05 worker hours"
    assert str(spent) == "2 rollouts, 600 tokens in 5 s on 2 workers: 120 tokens/s, 0.0025 worker hours"
