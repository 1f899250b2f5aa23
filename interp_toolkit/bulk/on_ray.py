"""Share a job among the workers of a Ray cluster, which write the same parts into the same folder."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interp_toolkit.bulk.parts import Progress, job_settings
from interp_toolkit.errors import InterpToolkitError, first_line
from interp_toolkit.settings import whole_number

# How often Ray begins a worker again that died; it goes on with the parts that are missing.
_RETRIES = 3


def run_on_ray(
    job: Callable[..., Progress], inputs: str | Path, output: str | Path, *settings: Any, workers: int, **options: Any
) -> Progress:
    """Run `describe_file`, `describe_sae`, `explain_file` or `read_file` in several processes of a Ray cluster.

    Each worker loads the model for itself and makes parts as it would without Ray, so the files hold the same. The
    cluster is the one that this process is connected to, else that of ``RAY_ADDRESS``, else one on this machine; its
    processors and GPUs are divided among the workers. Inputs and output must be visible to all of them.

    Args:
        job: the function.
        inputs: its first argument, a path.
        output: folder of the parts.
        settings: further arguments of the function.
        workers: how many processes.
        options: further named arguments of the function; its model by name, folder or address.

    Returns:
        what the workers did together.

    Raises:
        InterpToolkitError: Ray is not installed, a model or other argument that cannot be sent to workers, or what the
            job raised.

    Example:
        >>> run_on_ray(describe_file, "vectors.parquet", "descriptions", workers=8, adapter="my-adapter")
    """
    workers = whole_number(workers, "workers", least=1)
    model = options.get("model", "")
    if not isinstance(model, (str, Path)):
        raise InterpToolkitError(
            f"expected model as a name, a folder or an address, which each worker loads for itself, got "
            f"{type(model).__name__}"
        )
    if options.pop("shard", None) is not None:
        raise InterpToolkitError("shard would have no effect: on Ray each worker has its own; leave it out")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise InterpToolkitError("workers on Ray take ray: pip install 'interp-toolkit[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    there = ray.cluster_resources()
    resources = dict(
        num_cpus=max(1, int(there.get("CPU", 1) // workers)),
        num_gpus=min(1.0, there.get("GPU", 0) / workers),
        max_retries=_RETRIES,
    )
    options = {name: _absolute(value) for name, value in options.items()} | dict(progress=False)
    work = ray.remote(_work).options(**resources)
    arguments = (job, _absolute(inputs), Path(output).resolve(), settings, options)
    shares = [work.remote(*arguments, f"{i}/{workers}") for i in range(workers)]
    try:
        done: list[Progress] = ray.get(shares)
    except ray.exceptions.RayTaskError as error:
        # What the job raised in the worker; Ray's error has its traceback in the text.
        cause = getattr(error, "cause", None)
        if isinstance(cause, InterpToolkitError):
            raise cause from error
        raise InterpToolkitError(f"a worker failed: {first_line(error)}") from error
    except ray.exceptions.RayError as error:
        raise InterpToolkitError(
            f"the workers could not go on: {first_line(error)}; the same call continues with the parts that are missing"
        ) from error
    written = sum(one.written for one in done)
    part_count = job_settings(output)["parts"]
    return Progress(written, part_count - written, 0, sum(one.rows for one in done))


def _work(
    job: Callable[..., Progress],
    inputs: str | Path,
    output: Path,
    settings: tuple[Any, ...],
    options: dict[str, Any],
    shard: str,
) -> Progress:
    """What each worker does."""
    return job(inputs, output, *settings, shard=shard, **options)


def _absolute(value: Any) -> Any:
    """A path that is there, from the root: workers have another current folder."""
    if isinstance(value, (str, Path)) and value and Path(value).expanduser().exists():
        return Path(value).expanduser().resolve()
    return value
