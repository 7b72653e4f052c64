"""Data parallelism in one program: the LLM has --dp-size replicas, and the prompts go where there is room.

    python data_parallel.py --dp-size 2 --tp-size 1

Where vLLM's documents start a process a rank, with its rank in the environment and its share of the prompts, one LLM does it here: it starts
the ranks, watches them and starts one again that dies, and its prompts go on elsewhere.
"""
import argparse
import collections
import pathlib

from chorus import LLM, SamplingParams

STORIES = pathlib.Path(__file__).resolve().parents[2] / "models" / "stories260k"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=STORIES)
    parser.add_argument("--dp-size", type=int, default=2, help="replicas")
    parser.add_argument("--tp-size", type=int, default=1, help="workers of each replica")
    parser.add_argument("--enable-expert-parallel", action="store_true")
    arguments = parser.parse_args()
    prompts = ["Once upon a time", "The little dog", "Lily was sad because", "One day, a boy"] * 25
    # As many tokens for the prompts of each rank as they like: replicas do not wait for each other.
    params = [SamplingParams(temperature=0.8, top_p=0.95, max_tokens=16 + 4 * (i % 5), seed=i) for i in range(len(prompts))]
    with LLM(model=arguments.model, data_parallel_size=arguments.dp_size, tensor_parallel_size=arguments.tp_size,
             enable_expert_parallel=arguments.enable_expert_parallel, max_model_len=512, kv_cache_memory="64MiB") as llm:
        outputs = llm.generate(prompts, params)
    for output in outputs[:5]:
        print(f"DP rank {output.dp_rank}, prompt: {output.prompt!r}, text: {output.outputs[0].text!r}")
    for rank, count in sorted(collections.Counter(output.dp_rank for output in outputs).items()):
        print(f"DP rank {rank} computed {count} of {len(outputs)} prompts")


if __name__ == "__main__":
    main()
