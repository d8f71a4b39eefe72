"""Several runs: one after the other on this machine, or each as a Ray task on any machine with room for it.

Either way a run is a folder that ``complete`` creates or resumes, so a run that was interrupted, or whose
machine was lost, continues after its last finished epoch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fertools import data
from fertools.cluster import ENGINES, connected
from fertools.data.source import lasting
from fertools.errors import FertoolsError, WriteError
from fertools.evaluation import is_run
from fertools.training.config import TrainConfig
from fertools.training.run import Run

#: How often a run is retried after its process or machine was lost; bounded, since a run may kill its
#: process.
RETRIES: Final = 10

#: Trains a run of a data set to its end.
Train = Callable[[Run, data.Dataset], object]
#: Name of a run, and why it failed, or None.
End = tuple[str, str | None]


@dataclass(frozen=True)
class Job:
    """A run to be trained to its end: its folder, its configuration, its data and its first weights."""

    path: Path
    config: TrainConfig
    source: str
    weights: str | None = None
    other_data: bool = False
    tensorboard: bool = False

    def absolute(self) -> Job:
        """Return the job with absolute paths."""
        weights = self.weights
        if weights is not None and Path(weights).exists():
            weights = os.path.abspath(weights)
        return replace(self, path=self.path.absolute(), source=lasting(self.source), weights=weights)


def complete(job: Job, train: Train | None = None) -> None:
    """Create and train the run, or resume it. Raises what ``new_run`` and ``train`` raise."""
    from fertools.backend import import_keras, select_device

    import_keras()
    from fertools.training import trainer

    device = select_device(job.config.device, job.config.devices)
    dataset, run = data.load(job.source), Run(job.path)
    if run.finished:
        return
    if not is_run(job.path):
        trainer.new_run(
            job.path, job.config, dataset, job.source, device, job.weights, other_data=job.other_data
        )
    if train is not None:
        train(run, dataset)
    else:
        trainer.train(run, dataset, tensorboard=job.tensorboard)


def here(jobs: Mapping[str, Job], train: Callable[[Job], Train]) -> Iterator[End]:
    """Complete all jobs, one after the other; one that fails stops no other.

    Arguments:
        jobs: name -> job.
        train: how to train the run of a job.
    """
    for name, job in jobs.items():
        try:
            complete(job, train(job))
        except WriteError:
            raise
        except Exception as error:  # the frameworks have errors of their own, e.g. of a GPU without memory
            yield name, _reason(error, job.path)
        else:
            yield name, None


@dataclass(frozen=True)
class Engine:
    """Where several runs are trained.

    Attributes:
        name: one of ``ENGINES``; the other fields are for "ray".
        address: as ``fertools.cluster.connected`` takes it.
        cpus: that each run reserves.
        gpus: that each run reserves; None is one where the cluster has any and the run may use it.
    """

    name: str = ENGINES[0]
    address: str | None = None
    cpus: int = 1
    gpus: float | None = None


#: On this machine.
HERE: Final = Engine()


def on_ray(jobs: Mapping[str, Job], engine: Engine) -> Iterator[End]:
    """Complete all jobs on a Ray cluster, in the order that they end; one that fails stops no other.

    All machines must have the folders and the data at the same paths, and fertools installed. A task whose
    machine is lost is restarted elsewhere and continues after the last epoch in its run folder.

    Arguments:
        jobs: name -> job.
        engine: the cluster, and what each run reserves.
    """
    with connected(engine.address) as ray:
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        task = ray.remote(_complete_in_task)
        names = {}
        for name, job in jobs.items():
            gpus = float(has_gpus and job.config.device != "cpu") if engine.gpus is None else engine.gpus
            options = {"num_cpus": engine.cpus, "num_gpus": gpus, "max_retries": RETRIES}
            names[task.options(**options).remote(job.absolute(), engine.cpus)] = name
        while names:
            (done,), _ = ray.wait([*names], num_returns=1)
            name = names.pop(done)
            try:
                yield name, ray.get(done)
            except ray.exceptions.RayError as error:
                yield name, _reason(error, jobs[name].path)


def _complete_in_task(job: Job, cpus: int) -> str | None:
    """Complete a job in a Ray process; return why it failed."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(cpus))
    try:
        complete(job)
    except Exception as error:
        return _reason(error, job.path)
    return None


def _reason(error: Exception, path: Path) -> str:
    """Return why the run at ``path`` failed, in one line that does not name it."""
    text = next(iter(str(error).strip().splitlines()), "it says nothing")
    if isinstance(error, FertoolsError):
        return text.removeprefix(f"{path}: ")
    return f"{type(error).__name__}: {text}"
