// json.dumps as Python writes it: separators, escapes, float digits, key conversions.
#include <algorithm>
#include <cmath>

#include "jinja/text.h"
#include "jinja/value.h"

namespace chorus::jinja {
namespace {

class Writer {
 public:
  Writer(const JsonStyle& style, Budget* budget) : style_(style), budget_(budget) {}

  void write(const Value& value) {
    budget_->step();
    const Budget::Level level(budget_);
    switch (value.kind()) {
      case Kind::none:
        out += "null";
        break;
      case Kind::boolean:
        out += value.boolean() ? "true" : "false";
        break;
      case Kind::integer:
        out += fmt::format("{}", value.integer());
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
    budget_->output(out.size());
  }

  std::string out;

 private:
  void write_float(double value) {
    if (std::isnan(value)) {
      out += "NaN";
    } else if (std::isinf(value)) {
      out += value < 0 ? "-Infinity" : "Infinity";
    } else {
      out += float_repr(value);
    }
  }

  void write_escape(std::uint32_t unit) { out += fmt::format("\\u{:04x}", unit); }

  void write_string(std::string_view text) {
    budget_->string_of(text.size());
    out.push_back('"');
    for (const char32_t c : to_code_points(text)) {
      const auto point = static_cast<std::uint32_t>(c);
      switch (c) {
        case U'"':
          out += "\\\"";
          continue;
        case U'\\':
          out += "\\\\";
          continue;
        case U'\n':
          out += "\\n";
          continue;
        case U'\r':
          out += "\\r";
          continue;
        case U'\t':
          out += "\\t";
          continue;
        case U'\f':
          out += "\\f";
          continue;
        case U'\b':
          out += "\\b";
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
        append_utf8(c, &out);
      }
    }
    out.push_back('"');
  }

  void new_line() {
    if (!style_.indent) return;
    out.push_back('\n');
    for (int i = 0; i < depth_; ++i) out += *style_.indent;
  }

  void write_list(const Items& items) {
    if (items.empty()) {
      out += "[]";
      return;
    }
    out.push_back('[');
    ++depth_;
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i != 0) out += style_.item_separator;
      new_line();
      write(items[i]);
    }
    --depth_;
    new_line();
    out.push_back(']');
  }

  std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::string:
        return key.string();
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
      out += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return order(a->first, b->first, "<", *budget_) == -1; });
    }
    out.push_back('{');
    ++depth_;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (i != 0) out += style_.item_separator;
      new_line();
      write_string(key_text(entries[i]->first));
      out += style_.key_separator;
      write(entries[i]->second);
    }
    --depth_;
    new_line();
    out.push_back('}');
  }

  const JsonStyle& style_;
  Budget* budget_;
  int depth_ = 0;
};

}  // namespace

std::string to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  Writer writer(style, &budget);
  writer.write(value);
  return std::move(writer.out);
}

}  // namespace chorus::jinja
