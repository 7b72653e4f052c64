// Filters on text.
#include <algorithm>
#include <array>

#include "jinja/builtins.h"
#include "jinja/operators.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

using I = Interpreter;
using V = Value;

Value text_result(const V& input, String text) {
  return V::of(std::move(text), input.is_markup());
}

// soft_str(value)
Value text_value(I& i, const V& value) {
  if (value.is_string()) return value;
  String text(i.budget());
  append_text(value, &text, i.budget());
  return V::of(std::move(text));
}

// soft_str(value) with a str method of the same name.
Value by_method(I& i, const V& value, const char* name, const Arguments& arguments) {
  return i.call(i.attribute(text_value(i, value), name), arguments);
}

// Words begin after one of -({[< or white space.
Value title(I& i, const V& value, const Bound&) {
  const ReadText text(value, i.budget());
  String out(i.budget());
  std::size_t begin = 0;  // of the word
  const auto flush = [&](std::size_t end) {
    if (begin == end) return;
    const std::string_view word = text.view().substr(begin, end - begin);
    const std::size_t first = after_character(word, 0);
    append_upper(word.substr(0, first), &out);
    append_lower(word.substr(first), &out);
  };
  for (std::size_t at = 0; at < text.view().size();) {
    const std::size_t before = at;
    const char32_t c = next_code_point(text, &at);
    if (!is_space(c) && std::u32string_view(U"-({[<").find(c) == std::u32string_view::npos) continue;
    flush(before);
    out += text.view().substr(before, at - before);
    begin = at;
  }
  flush(text.view().size());
  return text_result(value, std::move(out));
}

Value indent(I& i, const V& value, const Bound& a) {
  if (!value.is_string()) {
    if (value.is_undefined()) value.raise_undefined();
    raise("TypeError", "unsupported operand type(s) for +=: '{}' and 'str'", value.type_name());
  }
  Budget& budget = i.budget();
  const bool by_text = a[0] != nullptr && a[0]->is_string();
  String indention(budget);
  if (by_text) {
    indention = a[0]->string();
  } else {
    append_repeated(" ", static_cast<std::uint64_t>(std::max<std::int64_t>(a.integer(0, 4), 0)), &indention);
  }
  const bool blank = a.flag(2, false);
  String out(budget);
  if (a.flag(1, false)) out += indention;
  bool first = true;
  const auto add = [&](std::string_view line) {
    budget.step();
    budget.read_bytes(indention.size());
    if (!first) out += "\n";
    if (!first && (blank || !line.empty())) out += indention;
    out += line;
    first = false;
  };
  const std::string_view text = value.string();
  each_line(text, false, add);
  // jinja2 splits the text with a newline behind it, so after a line's end there is an empty line; "\r\n" is one end.
  if (text.empty() || (ends_line(text) && text.back() != '\r')) add("");
  return text_result(value, std::move(out));
}

Value truncate(I& i, const V& value, const Bound& a) {
  const std::int64_t length = a.integer(0, 255);
  const std::string_view end = a.text(2, "...");
  const std::int64_t leeway = a[3] == nullptr || a[3]->is_none() ? 5 : a.integer(3, 5);
  const auto end_length = static_cast<std::int64_t>(count_code_points(end));
  if (length < end_length) raise("AssertionError", "expected length >= {}, got {}", end_length, length);
  if (leeway < 0) raise("AssertionError", "expected leeway >= 0, got {}", leeway);
  const auto size = length_of(value);
  if (!size) raise("TypeError", "object of type '{}' has no len()", value.type_name());
  if (!value.is_string() || static_cast<std::int64_t>(*size) <= length ||  // and below, without an overflow
      static_cast<std::int64_t>(*size) - length <= leeway) {
    return value;
  }
  const V cut = *slice(value, V::none(), V::of(length - end_length), V::none(), i.budget());
  std::string_view kept = cut.string();
  if (!a.flag(1, false)) kept = kept.substr(0, std::min(kept.rfind(' '), kept.size()));
  String out(kept, i.budget());
  out += end;
  return text_result(value, std::move(out));
}

Value replace(I& i, const V& value, const Bound& a) {
  Arguments arguments(Items({text_value(i, *a[0]), text_value(i, *a[1])}, i.budget()));
  if (a[2] != nullptr && !a[2]->is_none()) arguments.positional.push_back(*a[2]);
  String text(i.budget());
  append_text(value, &text, i.budget());
  return by_method(i, V::of(std::move(text)), "replace", arguments);
}

Value word_count(I& i, const V& value, const Bound&) {
  std::int64_t words = 0;
  bool inside = false;
  const ReadText text(value, i.budget());
  each_code_point(text, [&](char32_t c) {  // runs of \w
    const bool is_word = c == U'_' || is_alphanumeric(c);
    if (is_word && !inside) ++words;
    inside = is_word;
  });
  return V::of(words);
}

// `in_path`: a slash stays; otherwise it is a query, where a blank is a plus sign.
void append_url(std::string_view text, bool in_path, String* out) {
  static constexpr std::string_view digits = "0123456789ABCDEF";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos || (c == '/' && in_path);
    if (c == ' ' && !in_path) {
      out->push_back('+');
    } else if (plain) {
      out->push_back(c);
    } else {
      out->push_back('%');
      out->push_back(digits[byte >> 4]);
      out->push_back(digits[byte & 15]);
    }
  }
}

Value url_encode(I& i, const V& value, const Bound&) {
  Budget& budget = i.budget();
  String out(budget);
  if (value.is_string() || !is_iterable(value)) {
    append_url(ReadText(value, budget), true, &out);
    return V::of(std::move(out));
  }
  const auto add_part = [&](const V& part) {
    const ReadText text(part, budget);
    budget.read_characters(text.view().size());
    append_url(text, false, &out);
  };
  const auto add = [&](const V& key, const V& item) {
    budget.step();
    if (!out.empty()) out += "&";
    add_part(key);
    out += "=";
    add_part(item);
  };
  if (value.is(Kind::dict)) {
    for (const auto& [key, item] : value.dict().entries()) add(key, item);
  } else {
    for (const V& pair : iterate(value, budget)) {
      const Items parts = iterate(pair, budget);
      if (parts.size() != 2) raise("ValueError", "not enough values to unpack (expected 2, got {})", parts.size());
      add(parts[0], parts[1]);
    }
  }
  return V::of(std::move(out));
}

Value to_json_filter(I& i, const V& value, const Bound& a) {
  JsonStyle style;
  style.ensure_ascii = a.flag(0, false);
  String blanks(i.budget());
  if (a[1] != nullptr && !a[1]->is_none()) {
    if (a[1]->is_string()) {
      style.indent = a[1]->string();
    } else {
      const std::int64_t width = a.integer(1, 0);
      if (width > 1000) raise("ValueError", "an indent of {} is more than 1000", width);
      blanks.append(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
      style.indent = blanks;
    }
    style.item_separator = ",";
  }
  Items separators(i.budget());
  if (a[2] != nullptr && !a[2]->is_none()) {
    separators = iterate(*a[2], i.budget());
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string()) {
      raise("ValueError", "separators wants two strings");
    }
    style.item_separator = separators[0].string();
    style.key_separator = separators[1].string();
  }
  style.sort_keys = a.flag(3, false);
  String out(i.budget());
  append_json(value, style, &out, i.budget());
  return V::of(std::move(out));
}

Value format_filter(I& i, const V& value, const Bound& a) {
  const Arguments& raw = a.raw();
  Dict named(i.budget());
  for (const Argument& argument : raw.named) named.set(V::of(argument.name, i.budget()), argument.value, i.budget());
  if (named.size() != 0 && !raw.positional.empty()) {
    raise("FilterArgumentError", "can't handle positional and keyword arguments at the same time");
  }
  const V arguments = named.size() != 0 ? V::of(std::move(named)) : V::tuple(Items(raw.positional, i.budget()));
  const ReadText text(value, i.budget());
  return text_result(value, format_percent(text, arguments, value.is_markup(), i.budget()));
}

Value force_escape(I& i, const V& value, const Bound&) {
  const ReadText text(value, i.budget());
  String out(i.budget());
  append_escaped(text, &out);
  return V::of(std::move(out), true);
}

Value escape(I& i, const V& value, const Bound& a) {
  return value.is_markup() ? value : force_escape(i, value, a);
}

Value strip_tags(I& i, const V& value, const Bound&) {
  String out(i.budget());
  bool inside = false;
  const ReadText text(value, i.budget());
  for (const char c : text.view()) {
    if (c == '<') inside = true;
    if (!inside) out.push_back(c);
    if (c == '>') inside = false;
  }
  const V words = by_method(i, V::of(std::move(out)), "split", Arguments(i.budget()));
  return by_method(i, V::of(" ", i.budget()), "join", Arguments(Items({words}, i.budget())));
}

constexpr std::array<Function, 21> filters = {{
    {"tojson", "ensure_ascii indent separators sort_keys", to_json_filter, Reads::by_itself},
    {"trim", "chars", [](I& i, const V& v, const Bound& a) { return by_method(i, v, "strip", a.raw()); },
     Reads::by_itself},
    {"upper", "", [](I& i, const V& v, const Bound& a) { return by_method(i, v, "upper", a.raw()); }, Reads::by_itself},
    {"lower", "", [](I& i, const V& v, const Bound& a) { return by_method(i, v, "lower", a.raw()); }, Reads::by_itself},
    {"capitalize", "", [](I& i, const V& v, const Bound& a) { return by_method(i, v, "capitalize", a.raw()); },
     Reads::by_itself},
    {"center", "width",
     [](I& i, const V& v, const Bound& a) {
       return by_method(i, v, "center", Arguments(Items({a[0] != nullptr ? *a[0] : V::of(80)}, i.budget())));
     },
     Reads::by_itself},
    {"title", "", title},
    {"replace", "=old =new count", replace, Reads::bytes},
    {"indent", "width first blank", indent},
    {"truncate", "length killwords end leeway", truncate},
    {"string", "", [](I& i, const V& v, const Bound&) { return text_value(i, v); }, Reads::by_itself},
    {"safe", "",
     [](I& i, const V& v, const Bound&) {
       String text(i.budget());
       append_text(v, &text, i.budget());
       return V::of(std::move(text), true);
     },
     Reads::bytes},
    {"escape", "", escape},
    {"e", "", escape},
    {"forceescape", "", force_escape},
    {"striptags", "", strip_tags},
    {"format", nullptr, format_filter},
    {"wordcount", "", word_count},
    {"urlencode", "", url_encode},
    {"pprint", "",
     [](I& i, const V& v, const Bound&) {
       String text(i.budget());
       append_repr(v, &text, i.budget());
       return V::of(std::move(text));
     },
     Reads::by_itself},
    {"attr", "=name", [](I& i, const V& v, const Bound& a) { return i.attribute(v, a.text(0, "")); }, Reads::by_itself},
}};

}  // namespace

std::span<const Function> string_filters() {
  return filters;
}

}  // namespace chorus::jinja
