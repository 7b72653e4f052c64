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

std::string text_of(I& i, const V& value) {
  return to_text(value, i.budget());
}

Value text_result(I& i, const V& input, std::string text) {
  return make_string(std::move(text), i.budget(), input.is_markup());
}

// soft_str(value) with a str method of the same name.
Value by_method(I& i, const V& value, const char* name, const Arguments& arguments) {
  const V text = value.is_string() ? value : make_string(text_of(i, value), i.budget());
  return i.call(i.attribute(text, name), arguments);
}

// Words begin after one of -({[< or white space.
Value title(I& i, const V& value, const Bound&) {
  std::string out;
  std::string word;
  const auto flush = [&] {
    std::size_t first = 0;  // bytes of the first character
    while (first < word.size() && (first == 0 || (static_cast<unsigned char>(word[first]) & 0xc0) == 0x80)) ++first;
    out += to_upper(std::string_view(word).substr(0, first)) + to_lower(std::string_view(word).substr(first));
    word.clear();
  };
  for (const char32_t c : to_code_points(text_of(i, value))) {
    if (is_space(c) || std::u32string_view(U"-({[<").find(c) != std::u32string_view::npos) {
      flush();
      append_utf8(c, &out);
    } else {
      append_utf8(c, &word);
    }
  }
  flush();
  return text_result(i, value, std::move(out));
}

Value indent(I& i, const V& value, const Bound& a) {
  if (!value.is_string()) {
    if (value.is_undefined()) value.raise_undefined();
    raise("TypeError", "unsupported operand type(s) for +=: '{}' and 'str'", value.type_name());
  }
  const bool by_text = a[0] != nullptr && a[0]->is_string();
  const std::int64_t width = by_text ? 0 : a.integer(0, 4);
  if (!by_text && width > 0) i.budget().string_of(static_cast<std::uint64_t>(width));
  const std::string indention =
      by_text ? a[0]->string() : std::string(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
  const bool blank = a.flag(2, false);
  const std::vector<std::string> lines = split_lines(value.string() + "\n", false);
  i.budget().string_of(value.string().size() + lines.size() * (indention.size() + 1));
  std::string out = a.flag(1, false) ? indention : "";
  for (std::size_t n = 0; n < lines.size(); ++n) {
    if (n != 0) out += "\n";
    if (n != 0 && (blank || !lines[n].empty())) out += indention;
    out += lines[n];
  }
  return text_result(i, value, std::move(out));
}

Value truncate(I& i, const V& value, const Bound& a) {
  const std::int64_t length = a.integer(0, 255);
  const std::string end = a.text(2, "...");
  const std::int64_t leeway = a[3] == nullptr || a[3]->is_none() ? 5 : a.integer(3, 5);
  const auto end_length = static_cast<std::int64_t>(count_code_points(end));
  if (length < end_length) raise("AssertionError", "expected length >= {}, got {}", end_length, length);
  if (leeway < 0) raise("AssertionError", "expected leeway >= 0, got {}", leeway);
  const auto size = length_of(value);
  if (!size) raise("TypeError", "object of type '{}' has no len()", value.type_name());
  if (!value.is_string() || static_cast<std::int64_t>(*size) <= length + leeway) return value;
  std::string cut = slice(value, V::none(), V::of(length - end_length), V::none(), i.budget())->string();
  if (!a.flag(1, false)) cut = cut.substr(0, std::min(cut.rfind(' '), cut.size()));
  return text_result(i, value, cut + end);
}

Value replace(I& i, const V& value, const Bound& a) {
  Arguments arguments;
  arguments.positional = {V::of(text_of(i, *a[0])), V::of(text_of(i, *a[1]))};
  if (a[2] != nullptr && !a[2]->is_none()) arguments.positional.push_back(*a[2]);
  return by_method(i, V::of(text_of(i, value)), "replace", arguments);
}

Value word_count(I& i, const V& value, const Bound&) {
  std::int64_t words = 0;
  bool inside = false;
  const std::string text = text_of(i, value);
  for (const char32_t c : to_code_points(text)) {  // runs of \w
    std::string one;
    append_utf8(c, &one);
    const bool is_word = c == U'_' || is_class(one, "alnum");
    if (is_word && !inside) ++words;
    inside = is_word;
  }
  return V::of(words);
}

// `in_path`: a slash stays; otherwise it is a query, where a blank is a plus sign.
std::string url_quote(std::string_view text, bool in_path) {
  std::string out;
  for (const char c : text) {
    if (c == ' ' && !in_path) {
      out.push_back('+');
      continue;
    }
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos || (c == '/' && in_path);
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

Value url_encode(I& i, const V& value, const Bound&) {
  if (value.is_string() || !is_iterable(value)) return make_string(url_quote(text_of(i, value), true), i.budget());
  std::string out;
  const auto add = [&](const V& key, const V& item) {
    if (!out.empty()) out += "&";
    out += url_quote(text_of(i, key), false) + "=" + url_quote(text_of(i, item), false);
  };
  if (value.is(Kind::dict)) {
    for (const auto& [key, item] : value.dict().entries()) add(key, item);
  } else {
    for (const V& pair : iterate(value, i.budget())) {
      const Items parts = iterate(pair, i.budget());
      if (parts.size() != 2) raise("ValueError", "not enough values to unpack (expected 2, got {})", parts.size());
      add(parts[0], parts[1]);
    }
  }
  return make_string(std::move(out), i.budget());
}

Value to_json_filter(I& i, const V& value, const Bound& a) {
  JsonStyle style;
  style.ensure_ascii = a.flag(0, false);
  if (a[1] != nullptr && !a[1]->is_none()) {
    if (a[1]->is_string()) {
      style.indent = a[1]->string();
    } else {
      const std::int64_t width = a.integer(1, 0);
      if (width > 1000) raise("ValueError", "an indent of {} is more than 1000", width);
      style.indent = std::string(static_cast<std::size_t>(std::max<std::int64_t>(width, 0)), ' ');
    }
    style.item_separator = ",";
  }
  if (a[2] != nullptr && !a[2]->is_none()) {
    const Items separators = iterate(*a[2], i.budget());
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string()) {
      raise("ValueError", "separators wants two strings");
    }
    style.item_separator = separators[0].string();
    style.key_separator = separators[1].string();
  }
  style.sort_keys = a.flag(3, false);
  return make_string(to_json(value, style, i.budget()), i.budget());
}

Value format_filter(I& i, const V& value, const Bound& a) {
  const Arguments& raw = a.raw();
  Dict named;
  for (const auto& [name, item] : raw.named) named.set(V::of(name), item);
  if (named.size() != 0 && !raw.positional.empty()) {
    raise("FilterArgumentError", "can't handle positional and keyword arguments at the same time");
  }
  const V arguments = named.size() != 0 ? V::of(std::move(named)) : V::tuple(raw.positional);
  return text_result(i, value, format_percent(text_of(i, value), arguments, value.is_markup(), i.budget()));
}

Value escape(I& i, const V& value, const Bound&) {
  return value.is_markup() ? value : make_string(escape_html(text_of(i, value)), i.budget(), true);
}

Value strip_tags(I& i, const V& value, const Bound&) {
  std::string out;
  bool inside = false;
  for (const char c : text_of(i, value)) {
    if (c == '<') inside = true;
    if (!inside) out.push_back(c);
    if (c == '>') inside = false;
  }
  Arguments none;
  const V words = by_method(i, V::of(std::move(out)), "split", none);
  Arguments join{{words}, {}};
  return by_method(i, V::of(" "), "join", join);
}

constexpr std::array<Function, 21> filters = {{
    {"tojson", "ensure_ascii indent separators sort_keys", to_json_filter},
    {"trim", "chars", [](I& i, const V& v, const Bound& a) { return by_method(i, v, "strip", a.raw()); }},
    {"upper", "", [](I& i, const V& v, const Bound& a) { return by_method(i, v, "upper", a.raw()); }},
    {"lower", "", [](I& i, const V& v, const Bound& a) { return by_method(i, v, "lower", a.raw()); }},
    {"capitalize", "", [](I& i, const V& v, const Bound& a) { return by_method(i, v, "capitalize", a.raw()); }},
    {"center", "width",
     [](I& i, const V& v, const Bound& a) {
       return by_method(i, v, "center", Arguments{{a[0] != nullptr ? *a[0] : V::of(80)}, {}});
     }},
    {"title", "", title},
    {"replace", "=old =new count", replace},
    {"indent", "width first blank", indent},
    {"truncate", "length killwords end leeway", truncate},
    {"string", "",
     [](I& i, const V& v, const Bound&) { return v.is_string() ? v : make_string(text_of(i, v), i.budget()); }},
    {"safe", "", [](I& i, const V& v, const Bound&) { return make_string(text_of(i, v), i.budget(), true); }},
    {"escape", "", escape},
    {"e", "", escape},
    {"forceescape", "",
     [](I& i, const V& v, const Bound&) { return make_string(escape_html(text_of(i, v)), i.budget(), true); }},
    {"striptags", "", strip_tags},
    {"format", nullptr, format_filter},
    {"wordcount", "", word_count},
    {"urlencode", "", url_encode},
    {"pprint", "", [](I& i, const V& v, const Bound&) { return make_string(repr(v, i.budget()), i.budget()); }},
    {"attr", "=name", [](I& i, const V& v, const Bound& a) { return i.attribute(v, a.text(0, "")); }},
}};

}  // namespace

std::span<const Function> string_filters() {
  return filters;
}

}  // namespace chorus::jinja
