"""Offline generation: a list of prompts in, a list of outputs out."""
from __future__ import annotations

from chorus import _engine
from chorus._launched import LaunchedRanks
from chorus._progress import Progress
from chorus._prompts import engine_prompts, per_prompt
from chorus.outputs import RequestOutput, request_output
from chorus.sampling_params import SamplingParams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from chorus.tokenizer import Tokenizer

    Prompt = str | list[int] | dict[str, Any]
    Message = dict[str, Any]


class LLM:
    """A model on data_parallel_size replicas, each of tensor_parallel_size x pipeline_parallel_size workers.

    model: a Hugging Face model directory or a .gguf file. Every engine option of `chorus generate --help` is a parameter, with
    underscores: max_model_len (tokens of prompt and output), kv_cache_memory ("4GiB", of each worker), seed, dtype, enable_prefix_caching,
    load_balancer, assignment, ... None leaves a default. With distributed_executor_backend="external_launcher" the processes that torchrun,
    mpirun or srun started are the workers: each makes the same LLM, and all call generate() together.

    The engines are processes of their own; they end with close(), with the object, and with the program however it ends. Any thread may
    call; calls run one after the other. Of a process that fork() made the parent's LLM is not.

    Raises TypeError (no such option, and the nearest), ValueError (an option's value, or what the model does not take),
    FileNotFoundError (no such model), RuntimeError (the engines cannot start, with their last words).
    """

    def __init__(self, model: str, *, tokenizer: str | None = None, dtype: str = "auto", seed: int | None = 0, max_model_len: int | None = None,
                 data_parallel_size: int = 1, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1,
                 enable_expert_parallel: bool = False, distributed_executor_backend: str | None = None, data_parallel_backend: str = "mp",
                 enable_prefix_caching: bool | None = None, gpu_memory_utilization: float = 0.9, trust_remote_code: bool = False,
                 chat_template: str | None = None, **options: Any):
        options.update(tokenizer=tokenizer, dtype=dtype, seed=seed, max_model_len=max_model_len, data_parallel_size=data_parallel_size,
                       tensor_parallel_size=tensor_parallel_size, pipeline_parallel_size=pipeline_parallel_size,
                       enable_expert_parallel=enable_expert_parallel, distributed_executor_backend=distributed_executor_backend,
                       data_parallel_backend=data_parallel_backend, enable_prefix_caching=enable_prefix_caching,
                       gpu_memory_utilization=gpu_memory_utilization, trust_remote_code=trust_remote_code)
        self._ranks = LaunchedRanks.join("LLM", options)
        self._native = _engine.start("LLM", model, options, streams=False, meeting=self._ranks.meeting)
        self._close = self._ranks.end_with(self, self._native)
        self._chat_template = chat_template
        self._requests = 0
        self.llm_engine = _engine.LLMEngine(self._native)
        self._ranks.started(self.llm_engine.vllm_config.parallel_config)

    def generate(self, prompts: Prompt | Sequence[Prompt], sampling_params: SamplingParams | Sequence[SamplingParams] | None = None, *,
                 use_tqdm: bool = True, lora_request: None = None, priority: list[int] | None = None,
                 data_parallel_rank: int | Sequence[int | None] | None = None) -> list[RequestOutput]:
        """The outputs of prompts, in their order.

        A prompt is a text, a list of token ids, or {"prompt": ..} or {"prompt_token_ids": ..}. sampling_params: one for all, or one for
        each; None: the model's defaults. priority: lower runs first with scheduling_policy="priority". data_parallel_rank: which replica
        computes, one for all or one for each; None: by the LLM's `assignment`. The outputs do not depend on it.

        Raises ValueError for the first prompt that cannot run (its number, what, the limit), RuntimeError when no replica can be kept
        alive. What is computed of other prompts is then lost. A Ctrl-C ends the call; the LLM can be used again.
        """
        return self._generate(engine_prompts(prompts), sampling_params, use_tqdm, lora_request, priority, data_parallel_rank, True)

    def chat(self, messages: list[Message] | list[list[Message]], sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
             use_tqdm: bool = True, lora_request: None = None, chat_template: str | None = None, chat_template_content_format: str = "auto",
             add_generation_prompt: bool = True, continue_final_message: bool = False, tools: list[dict[str, Any]] | None = None,
             chat_template_kwargs: dict[str, Any] | None = None, mm_processor_kwargs: None = None) -> list[RequestOutput]:
        """The answers to one conversation, or to each of several: generate() of what the model's chat template makes of them. Raises
        ValueError where there is no template, or it refuses the messages."""
        if chat_template_content_format not in ("auto", "string", "openai"):
            raise ValueError(f"chat_template_content_format is {chat_template_content_format!r}: accepted: 'auto', 'string', 'openai'")
        if mm_processor_kwargs:
            raise ValueError("mm_processor_kwargs: Chorus takes texts alone; leave it out")
        conversations = [messages] if messages and isinstance(messages[0], dict) else messages
        tokenizer = self.get_tokenizer()
        prompts = [tokenizer.render_chat(conversation, chat_template=chat_template or self._chat_template, tools=tools,
                                         add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message,
                                         chat_template_kwargs=chat_template_kwargs) for conversation in conversations]
        return self._generate(prompts, sampling_params, use_tqdm, lora_request, None, None, False)  # the template writes special tokens

    def get_tokenizer(self) -> Tokenizer:
        return self.llm_engine.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """vLLM's defaults, with what the model's generation_config.json says."""
        return SamplingParams(**self._native.default_sampling)

    def close(self) -> None:
        """Ends the engines and waits for their end. Of ranks that a launcher started, each must come here. Again: nothing."""
        self._close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _generate(self, prompts, sampling_params, use_tqdm, lora_request, priority, dp_rank, add_special_tokens) -> list[RequestOutput]:
        if lora_request is not None:
            raise ValueError("lora_request: this version has no LoRA; leave it out")
        if not self._close.alive:
            raise RuntimeError("this LLM is closed: make another one")
        default = self.get_default_sampling_params() if sampling_params is None else None
        params = per_prompt("sampling_params", sampling_params, len(prompts), default)
        work = (prompts, params, per_prompt("priority", priority, len(prompts), 0), per_prompt("data_parallel_rank", dp_rank, len(prompts), None))
        told = self._ranks.generate(self._run, *work, use_tqdm, add_special_tokens)
        first = self._requests
        self._requests += len(prompts)
        tokenizer = self.get_tokenizer()
        return [request_output(str(first + i), one, params[i], tokenizer) for i, one in enumerate(told)]

    def _run(self, prompts, params, priorities, dp_ranks, use_tqdm, add_special_tokens) -> list:
        """What the engine tells of each prompt."""
        known: dict[int, Any] = {}
        options = [known.get(id(one)) or known.setdefault(id(one), one._native_options()) for one in params]
        job = self._native.generate(prompts, options, priorities, dp_ranks, add_special_tokens)
        progress = Progress(use_tqdm, len(prompts))
        try:
            while not job.wait(_engine.WAIT_MS):
                progress.show(job.finished, job.output_tokens)
            told = job.outputs()
            progress.show(job.finished, job.output_tokens)
            return told
        except BaseException:
            job.cancel()
            raise
        finally:
            progress.close()
