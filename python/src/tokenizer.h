// The tokenizer and the chat templates of a model's folder, for Python.
#pragma once

#include <memory>

#include "engine_thread.h"

namespace chorus::python {

// Refers to the engine's facts, which live as long as it does. Any thread.
struct TokenizerView {
  std::shared_ptr<EngineThread> engine;
  const TextModel& model() const { return engine->facts().model; }
  const ChatFormat& chat() const { return engine->facts().chat; }
};

}  // namespace chorus::python
