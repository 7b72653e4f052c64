"""Replicas as Ray's actors: each has an LLM of one replica, and the prompts i, i + dp-size, ...

    pip install ray
    python ray_dp.py --dp-size 2

Ray places the actors on the nodes of its cluster (RAY_ADDRESS; without it it starts one here). LLM(data_parallel_backend="ray") is the other
way: one LLM, whose replicas Ray places and whose prompts go on elsewhere when one dies; it needs the program chorus-ray (docs/ray.md).
"""
import argparse
import pathlib

import ray

STORIES = pathlib.Path(__file__).resolve().parents[2] / "models" / "stories260k"


@ray.remote(num_cpus=1)
class Replica:
    def __init__(self, model: str, rank: int):
        from chorus import LLM
        self.rank = rank
        self.llm = LLM(model=model, max_model_len=512, kv_cache_memory="64MiB", threads=1)

    def generate(self, prompts: list[str], **sampling) -> list[tuple[int, str]]:
        from chorus import SamplingParams
        outputs = self.llm.generate(prompts, SamplingParams(**sampling), use_tqdm=False)
        return [(self.rank, output.outputs[0].text) for output in outputs]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=STORIES)
    parser.add_argument("--dp-size", type=int, default=2, help="replicas")
    arguments = parser.parse_args()
    prompts = ["Once upon a time", "The little dog", "Lily was sad because", "One day, a boy"] * 2
    ray.init(include_dashboard=False, log_to_driver=False)
    size = arguments.dp_size
    replicas = [Replica.remote(str(arguments.model), rank) for rank in range(size)]
    shares = ray.get([replica.generate.remote(prompts[rank::size], temperature=0, max_tokens=24) for rank, replica in enumerate(replicas)])
    for i, prompt in enumerate(prompts):
        rank, text = shares[i % size][i // size]
        print(f"DP rank {rank}, prompt: {prompt!r}, text: {text!r}")
    ray.shutdown()


if __name__ == "__main__":
    main()
