// What a server says, made fit for a person's terminal. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "json/json.h"

namespace chorus {

// The message of OpenAI's error object, or of an error that is a string; fit for a terminal.
std::string message_of(const Json& error);

// What an answer that is no success says: OpenAI's error object, or else the beginning of its text.
std::string error_text(std::string_view body);

// Control characters but newline and tab (C0, DEL, C1) are spelt, so that no text moves a terminal's cursor or sets
// its title.
std::string terminal_text(std::string_view text);

}  // namespace chorus
