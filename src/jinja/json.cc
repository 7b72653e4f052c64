// json.dumps as Python writes it: separators, escapes, float digits, key conversions.
#include <algorithm>
#include <cmath>

#include "jinja/text.h"
#include "jinja/value.h"

namespace chorus::jinja {
namespace {

class Writer {
 public:
  Writer(const JsonStyle& style, String* out, Budget& budget) : style_(style), out_(*out), budget_(budget) {}

  void write(const Value& value) {
    budget_.step();
    const Budget::Level level(budget_);
    switch (value.kind()) {
      case Kind::none:
        out_ += "null";
        break;
      case Kind::boolean:
        out_ += value.boolean() ? "true" : "false";
        break;
      case Kind::integer:
        out_ += std::string_view(fmt::format("{}", value.integer()));
        break;
      case Kind::real:
        write_float(value.real());
        break;
      case Kind::string:
        write_string(value.string());
        break;
      case Kind::list:
      case Kind::tuple:
        write_list(value.items());
        break;
      case Kind::dict:
        write_dict(value.dict());
        break;
      default:
        raise("TypeError", "Object of type {} is not JSON serializable", value.type_name());
    }
  }

 private:
  void write_float(double value) {
    if (std::isnan(value)) {
      out_ += "NaN";
    } else if (std::isinf(value)) {
      out_ += value < 0 ? "-Infinity" : "Infinity";
    } else {
      out_ += float_repr(value);
    }
  }

  void write_escape(std::uint32_t unit) { out_ += std::string_view(fmt::format("\\u{:04x}", unit)); }

  void write_string(std::string_view text) {
    budget_.read_characters(text.size());
    out_.push_back('"');
    for (std::size_t at = 0; at < text.size();) {
      const char32_t c = next_code_point(text, &at);
      const auto point = static_cast<std::uint32_t>(c);
      switch (c) {
        case U'"':
          out_ += "\\\"";
          continue;
        case U'\\':
          out_ += "\\\\";
          continue;
        case U'\n':
          out_ += "\\n";
          continue;
        case U'\r':
          out_ += "\\r";
          continue;
        case U'\t':
          out_ += "\\t";
          continue;
        case U'\f':
          out_ += "\\f";
          continue;
        case U'\b':
          out_ += "\\b";
          continue;
        default:
          break;
      }
      if (point < 0x20 || (style_.ensure_ascii && point >= 0x7f && point < 0x10000)) {
        write_escape(point);
      } else if (style_.ensure_ascii && point >= 0x10000) {
        write_escape(0xd800 + ((point - 0x10000) >> 10));
        write_escape(0xdc00 + ((point - 0x10000) & 0x3ff));
      } else {
        append_utf8(c, &out_);
      }
    }
    out_.push_back('"');
  }

  void new_line() {
    if (!style_.indent) return;
    out_.push_back('\n');
    for (int i = 0; i < depth_; ++i) out_ += *style_.indent;
    budget_.read_bytes(static_cast<std::uint64_t>(depth_) * style_.indent->size());
  }

  void write_list(const Items& items) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    out_.push_back('[');
    ++depth_;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i != 0) out_ += style_.item_separator;
      new_line();
      write(items[i]);
    }
    --depth_;
    new_line();
    out_.push_back(']');
  }

  // A key that is no string.
  static std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::none:
        return "null";
      case Kind::boolean:
        return key.boolean() ? "true" : "false";
      case Kind::integer:
        return fmt::format("{}", key.integer());
      case Kind::real:
        return float_repr(key.real());
      default:
        raise("TypeError", "keys must be str, int, float, bool or None, not {}", key.type_name());
    }
  }

  void write_dict(const Dict& dict) {
    if (dict.size() == 0) {
      out_ += "{}";
      return;
    }
    Vector<const std::pair<Value, Value>*> entries(budget_);
    const Budget::Held sorting(budget_, dict.size() * sizeof(void*));  // stable_sort's buffer
    for (const auto& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return order(a->first, b->first, "<", budget_) == -1; });
    }
    out_.push_back('{');
    ++depth_;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i != 0) out_ += style_.item_separator;
      new_line();
      const Value& key = entries[i]->first;
      write_string(key.is_string() ? key.string() : std::string_view(key_text(key)));
      out_ += style_.key_separator;
      write(entries[i]->second);
    }
    --depth_;
    new_line();
    out_.push_back('}');
  }

  const JsonStyle& style_;
  String& out_;
  Budget& budget_;
  int depth_ = 0;
};

}  // namespace

void append_json(const Value& value, const JsonStyle& style, String* out, Budget& budget) {
  Writer(style, out, budget).write(value);
}

}  // namespace chorus::jinja
