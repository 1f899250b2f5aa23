"""Jobs shared among workers of a Ray cluster: the same files as without; a stand-in for Ray, and Ray where it is."""

import importlib
import importlib.util
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from interp_toolkit import InterpToolkitError
from interp_toolkit.bulk import describe_file, read_descriptions, run_on_ray
from interp_toolkit.bulk.vector_files import open_vectors
from interp_toolkit.cli import main
from interp_toolkit.errors import FileFormatError


class _Error(Exception):
    def __init__(self, cause=None):
        super().__init__(str(cause))
        self.cause = cause


def _stand_in(resources, asked):
    """A module like ray, whose workers run one after the other in this process."""

    def remote(work):
        def run(*arguments):
            try:
                return work(*arguments)
            except Exception as error:
                return _Error(error)

        def options(**settings):
            asked.append(settings)
            return SimpleNamespace(remote=run)

        return SimpleNamespace(options=options)

    def get(results):
        if failed := [one for one in results if isinstance(one, _Error)]:
            raise failed[0]
        return results

    errors = SimpleNamespace(RayTaskError=_Error, RayError=OSError)
    return SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=lambda: resources,
        remote=remote,
        get=get,
        exceptions=errors,
    )


@pytest.fixture
def asked(monkeypatch):
    asked = []
    monkeypatch.setitem(sys.modules, "ray", _stand_in({"CPU": 10.0, "GPU": 2.0}, asked))
    return asked


@pytest.fixture
def folder(tmp_path, checkpoints, adapter, random_vectors, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter.save_pretrained("adapter")
    pd.DataFrame({"vector": list(random_vectors(11).numpy())}).to_parquet("some.parquet")
    assert open_vectors("some.parquet").rows == 11
    return dict(model=str(checkpoints["llama"]), adapter="./adapter", rows_per_part=2)


def test_the_files_are_those_of_one_process(folder, asked):
    done = run_on_ray(describe_file, "some.parquet", "out", workers=4, **folder)
    assert (done.written, done.there, done.rows) == (6, 0, 11)
    # The cluster is divided among the workers.
    assert asked == [dict(num_cpus=2, num_gpus=0.5, max_retries=3)]
    describe_file("some.parquet", "alone", **folder)
    pd.testing.assert_frame_equal(read_descriptions("out"), read_descriptions("alone"))
    again = run_on_ray(describe_file, "some.parquet", "out", workers=4, **folder)
    assert (again.written, again.there) == (0, 6)


def test_the_command(folder, asked, capsys):
    command = ["describe", "some.parquet", "--model", folder["model"], "--adapter", "./adapter", "--output", "out"]
    assert main([*command, "--ray", "2"]) == 0
    assert capsys.readouterr().out == "out: 1 parts made (11 vectors), 0 were there\n"
    assert main([*command, "--ray", "2", "--shard", "0/2"]) == 2
    assert "shard would have no effect: on Ray each worker has its own" in capsys.readouterr().err


def test_what_cannot_be_shared_is_refused(folder, asked, tiny, monkeypatch):
    with pytest.raises(
        InterpToolkitError, match="expected model as a name, a folder or an address, .* got Transformer"
    ):
        run_on_ray(describe_file, "some.parquet", "out", workers=2, **folder | dict(model=tiny()))
    with pytest.raises(FileFormatError, match=r"none\.npy, where there is nothing"):
        run_on_ray(describe_file, "none.npy", "out", workers=2, **folder)
    with pytest.raises(InterpToolkitError, match="a worker failed: .*unexpected keyword argument"):
        run_on_ray(describe_file, "some.parquet", "out", workers=2, nothing=1, **folder)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InterpToolkitError, match=r"workers on Ray take ray: pip install 'interp-toolkit\[ray\]'"):
        run_on_ray(describe_file, "some.parquet", "out", workers=2, **folder)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("default")  # Ray's own
def test_on_ray(folder, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = importlib.import_module("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert run_on_ray(describe_file, "some.parquet", "out", workers=2, **folder).written == 6
        with pytest.raises(FileFormatError, match=r"none\.npy, where there is nothing"):
            run_on_ray(describe_file, "none.npy", "out", workers=2, **folder)
    finally:
        ray.shutdown()
    describe_file("some.parquet", "alone", **folder)
    pd.testing.assert_frame_equal(read_descriptions("out"), read_descriptions("alone"))
