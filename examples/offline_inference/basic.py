"""Prompts in, texts out.

    python basic.py
"""
import argparse
import pathlib

from chorus import LLM, SamplingParams

STORIES = pathlib.Path(__file__).resolve().parents[2] / "models" / "stories260k"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=STORIES)
    model = parser.parse_args().model
    prompts = ["Once upon a time", "The little dog", "Lily was sad because", "One day, a boy"]
    sampling_params = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=32, seed=1)
    llm = LLM(model=model, max_model_len=512)
    for output in llm.generate(prompts, sampling_params):
        print(f"Prompt: {output.prompt!r}\nText:   {output.outputs[0].text!r}\n")


if __name__ == "__main__":  # a child that multiprocessing spawns reads this file too
    main()
