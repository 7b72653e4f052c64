"""Conversations through a chat template: the model's own, or one that is given.

    python chat.py
"""
import argparse
import pathlib

from chorus import LLM, SamplingParams

STORIES = pathlib.Path(__file__).resolve().parents[2] / "models" / "stories260k"
# The small model of the repository knows no roles: it goes on with the last thing that was said.
PLAIN = "{% for message in messages %}{{ message.content }}{% if not loop.last %} {% endif %}{% endfor %}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=STORIES)
    parser.add_argument("--chat-template", help="a file; without it the model's own, or for the default model a plain one")
    arguments = parser.parse_args()
    template = PLAIN if arguments.model == STORIES else None
    if arguments.chat_template:
        template = pathlib.Path(arguments.chat_template).read_text(encoding="utf-8")
    conversations = [
        [{"role": "user", "content": "Once upon a time there was a cat."}],
        [{"role": "user", "content": "Tom had a ball."}, {"role": "assistant", "content": "It was red."}, {"role": "user", "content": "One day"}],
    ]
    llm = LLM(model=arguments.model, max_model_len=512)
    outputs = llm.chat(conversations, SamplingParams(temperature=0, max_tokens=32), chat_template=template, use_tqdm=False)
    for conversation, output in zip(conversations, outputs):
        for message in conversation:
            print(f"{message['role']}: {message['content']}")
        print(f"assistant:{output.outputs[0].text}\n")


if __name__ == "__main__":
    main()
