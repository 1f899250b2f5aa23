"""A frozen model of which each of several processes holds a share, for training where it does not fit into one."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.facts import model_facts, weights_key
from interp_toolkit.models.hooked import backend_of


def shard_blocks(model: Any) -> None:
    """Leave each process of the default group its share of every block's weights (FSDP2's ``fully_shard``).

    A block is put together for the time in which it runs, so from then on every process has to make the same passes:
    as many, in the same order. The embedding, the last norm and the unembedding stay whole. Numbers are those of the
    whole model. Weights that change afterwards are not noticed. It was tried with processes on a CPU, and not on GPUs.

    Args:
        model: the hooked model, a `TransformerBridge`, the same in each process; on the CPU where the whole does not
            fit onto a GPU.

    Raises:
        InterpToolkitError: there are no other processes, or a model that cannot be cut.

    Example:
        >>> shard_blocks(load_model("meta-llama/Llama-3.1-70B-Instruct", dtype="bfloat16", device="cpu"))
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not dist.is_initialized() or dist.get_world_size() == 1:
        raise InterpToolkitError(
            "expected several processes, of which each holds a share of the model, got one; start them by torchrun "
            "--nproc-per-node N -m interp_toolkit train CONFIG.yaml, or leave shard out"
        )
    backend = backend_of(model)
    if not hasattr(model, "original_model") or backend.rotary_limit < float("inf"):
        raise InterpToolkitError(
            f"expected a TransformerBridge whose passes do not depend on the length of a text, got "
            f"{type(model).__name__} of {model.cfg.model_name}; leave shard out"
        )
    # Taken now: the whole model is nowhere afterwards.
    of_whole = (model_facts(model), weights_key(model))
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    sharded = {id(weight) for block in model.blocks for weight in block.parameters()}
    for tensor in (*model.original_model.parameters(), *model.original_model.buffers()):
        if id(tensor) not in sharded:
            tensor.data = tensor.data.to(device)
    model.cfg.device = str(device)
    backend.of_whole = of_whole
