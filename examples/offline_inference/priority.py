"""Prompts distributed over replicas by the program itself: urgent prompts have the last replica to themselves.

    python priority.py --dp-size 3

data_parallel_rank says which replica computes a prompt, None leaves it to the load balancer; should that replica die, another takes it.
Whoever computes it, the tokens are the same. The ready-made distributions are the LLM's `assignment`: modulo, contiguous, priority, dynamic.
"""
import argparse
import pathlib

from chorus import LLM, SamplingParams

STORIES = pathlib.Path(__file__).resolve().parents[2] / "models" / "stories260k"


def rank_for(priority: int, index: int, replicas: int) -> int:
    """Lower is more urgent, as in vLLM: below 0 goes to the last replica, the others take turns."""
    return replicas - 1 if priority < 0 or replicas == 1 else index % (replicas - 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=STORIES)
    parser.add_argument("--dp-size", type=int, default=3, help="replicas")
    arguments = parser.parse_args()
    requests = [(f"Story number {i}: once upon a time", -1 if i % 6 == 0 else i % 3) for i in range(24)]
    priorities = [priority for _, priority in requests]
    ranks = [rank_for(priority, i, arguments.dp_size) for i, priority in enumerate(priorities)]
    with LLM(model=arguments.model, data_parallel_size=arguments.dp_size, scheduling_policy="priority", max_model_len=512,
             kv_cache_memory="64MiB") as llm:
        outputs = llm.generate([prompt for prompt, _ in requests], SamplingParams(temperature=0, max_tokens=24), priority=priorities,
                               data_parallel_rank=ranks, use_tqdm=False)
    for priority, output in zip(priorities, outputs):
        print(f"priority {priority:2} on replica {output.dp_rank}: {output.prompt!r} -> {output.outputs[0].text!r}")


if __name__ == "__main__":
    main()
