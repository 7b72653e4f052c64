"""The workers are the processes of a launcher: each runs this program, and all of them together are the engine.

    torchrun --nproc-per-node=4 torchrun_dp_example.py --dp-size 2 --tp-size 2 --output texts.jsonl

Each data-parallel rank takes its own prompts: number i goes to rank i mod dp-size. Each process gets the outputs of its rank's prompts and
prints them; rank 0 saves them all. Under mpirun and srun it runs the same way.
"""
import argparse
import json
import pathlib

from chorus import LLM, SamplingParams
from chorus.distributed.parallel_state import get_dp_group, get_world_group

STORIES = pathlib.Path(__file__).resolve().parents[2] / "models" / "stories260k"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=STORIES)
    parser.add_argument("--dp-size", type=int, default=1)
    parser.add_argument("--tp-size", type=int, default=1)
    parser.add_argument("--pp-size", type=int, default=1)
    parser.add_argument("--enable-ep", action="store_true")
    parser.add_argument("--output", help="where rank 0 saves all texts, as JSON lines")
    arguments = parser.parse_args()
    prompts = [f"{i}. {text}" for i, text in enumerate(["Once upon a time", "The little dog", "Lily was sad because", "One day, a boy"] * 3)]
    llm = LLM(model=arguments.model, data_parallel_size=arguments.dp_size, tensor_parallel_size=arguments.tp_size,
              pipeline_parallel_size=arguments.pp_size, enable_expert_parallel=arguments.enable_ep,
              distributed_executor_backend="external_launcher", max_model_len=512, kv_cache_memory="32MiB", seed=1)

    parallel = llm.llm_engine.vllm_config.parallel_config
    rank, size = parallel.data_parallel_rank, parallel.data_parallel_size
    own = list(range(rank, len(prompts), size))
    outputs = llm.generate([prompts[i] for i in own], SamplingParams(temperature=0.8, top_p=0.95, max_tokens=24), use_tqdm=False)
    for output in outputs:
        print(f"DP rank {rank}, prompt: {output.prompt!r}, text: {output.outputs[0].text!r}", flush=True)

    # This worker's part of the model, and the group of the same worker in every replica.
    model = llm.llm_engine.model_executor.driver_worker.worker.model_runner.model
    shapes = {name: array.shape for name, array in model.named_parameters()}
    print(f"world rank {get_world_group().rank} of {get_world_group().world_size} has {shapes['model.embed_tokens.weight']} of the embedding", flush=True)
    texts = {i: output.outputs[0].text for i, output in zip(own, outputs)}
    shares = [get_dp_group().broadcast_object(texts, src=other) for other in range(size)]
    if arguments.output and get_world_group().rank == 0:
        everything = sorted((i, text) for share in shares for i, text in share.items())
        lines = [json.dumps({"prompt": prompts[i], "text": text}) + "\n" for i, text in everything]
        pathlib.Path(arguments.output).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
