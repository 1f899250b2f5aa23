"""One of the processes that train together, for test_ranks: trains as JSON objects say, and writes what came out."""

import json
import os
import sys

import torch

from interp_toolkit import Adapter, Site, TrainConfig, VectorLabelPairs, load_model, train_adapter
from interp_toolkit.models import shard_blocks
from interp_toolkit.training import loop
from interp_toolkit.training.ranks import Ranks

WORDS = ["rivers", "Poland", "a fox", "baseball", "the dog", "history", "that", "jumps over"]


def pairs():
    vectors = torch.randn(40, 32, generator=torch.Generator().manual_seed(5))
    splits = ["val" if i >= 32 else "train" for i in range(40)]
    return VectorLabelPairs.from_tensors(
        vectors, WORDS * 5, splits=splits, site=Site.after(2), weights=[1.0 + i % 3 for i in range(40)]
    )


def end_at(call):
    """End the process at this call of the losses, as a machine that is switched off does."""
    losses, calls = loop.losses, []

    def ending(*arguments):
        calls.append(1)
        if len(calls) == call:
            os._exit(9)
        return losses(*arguments)

    loop.losses = ending


def trained(model, said):
    """What came out of one run: its history and its last weights."""
    adapter = Adapter.create(said["kind"], 32, init_scale=2.0, **{"rank": 8} if "low_rank" in said["kind"] else {})
    settings = dict(batch_size=said["batch"], max_steps=said["steps"], epochs=3, lr=0.05, eval_every=2, log_samples=0)
    config = TrainConfig(**settings | said.get("config", {}))
    result = train_adapter(model, pairs(), adapter, config, folder=said.get("folder"), progress=False)
    weights = {name: value.tolist() for name, value in result.last.state_dict().items()}
    return dict(history=result.history.to_dict("records"), weights=weights)


def main(path, out, ends, shard, runs):
    torch.set_num_threads(1)
    model = load_model(path, dtype="float32")
    if shard:
        Ranks.joined()
        shard_blocks(model)
    rank = os.environ.get("RANK", "alone")
    if rank in ends:
        end_at(ends[rank])
    results = [trained(model, said) for said in runs]
    with open(os.path.join(out, f"{rank}.json"), "w") as stream:
        json.dump(results, stream)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
