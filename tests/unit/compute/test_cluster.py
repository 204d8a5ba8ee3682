import os
import sys

import pytest
from distributed import LocalCluster

from vasculome.compute.cluster import open_cluster
from vasculome.config import ComputeConfig
from vasculome.errors import UserError


def _environment(names):
    return {name: os.environ.get(name) for name in names}


def test_inline_runs_here_and_keeps_errors_for_the_caller():
    with open_cluster(ComputeConfig(scheduler="inline")) as cluster:
        assert cluster.workers == 1
        assert cluster.submit(os.getpid).result() == os.getpid()
        with pytest.raises(ZeroDivisionError):
            cluster.submit(divmod, 1, 0).result()


def test_local_workers_are_processes_with_pinned_threads():
    main = sys.modules["__main__"]
    before = dict(vars(main))
    config = ComputeConfig(scheduler="local", workers=1, threads_per_worker=3)
    with open_cluster(config) as cluster:
        assert cluster.workers == 1
        assert cluster.submit(os.getpid).result() != os.getpid()
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        assert set(cluster.submit(_environment, names).result().values()) == {"3"}
        with pytest.raises(UserError, match="gone"):
            cluster.submit(_raise).result()
    assert {k: vars(main).get(k) for k in ("__file__", "__spec__")} == {
        k: before.get(k) for k in ("__file__", "__spec__")
    }


def _raise():
    raise UserError("gone", where="here", fix="look")


def test_no_scheduler_at_the_address(monkeypatch):
    monkeypatch.setattr("vasculome.compute.cluster._CONNECT_TIMEOUT_S", 0.5)
    config = ComputeConfig(scheduler="address", address="tcp://127.0.0.1:1")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1"), open_cluster(config):
        pass


def test_a_running_scheduler_is_used_and_one_without_workers_told():
    for workers in (0, 1):
        with LocalCluster(
            n_workers=workers,
            processes=False,
            dashboard_address=None,
            host="127.0.0.1",
            protocol="tcp://",
        ) as dask:
            config = ComputeConfig(scheduler="address", address=dask.scheduler_address)
            if workers == 0:
                with pytest.raises(UserError, match="no workers"), open_cluster(config):
                    pass
            else:
                with open_cluster(config) as cluster:
                    assert cluster.workers == 1
                    assert cluster.submit(abs, -3).result() == 3


def test_an_unknown_scheduler_is_refused():
    config = ComputeConfig.model_construct(scheduler="slurm")
    with pytest.raises(ValueError, match="slurm"), open_cluster(config):
        pass
