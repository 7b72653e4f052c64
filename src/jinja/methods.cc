// Methods of strings, dicts, lists and tuples, as Python has them.
#include <algorithm>
#include <array>
#include <functional>

#include "jinja/builtins.h"
#include "jinja/objects.h"
#include "jinja/operators.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

using I = Interpreter;
using V = Value;

// A text made from `self`, and markup if that is.
Value text_result(const V& self, String text) {
  return V::of(std::move(text), self.text().markup);
}
Value text_result(I& i, const V& self, std::string_view text) {
  return text_result(self, String(text, i.budget()));
}

Value strip(I& i, const V& self, const Bound& a, bool left, bool right) {
  std::string_view text = self.string();
  if (a[0] == nullptr || a[0]->is_none()) {
    if (left) text = strip_left(text);
    if (right) text = strip_right(text);
  } else {
    const CharacterSet set(a.text(0, ""), i.budget());
    if (left) text = set.strip_left(text);
    if (right) text = set.strip_right(text);
  }
  i.budget().read_characters(self.string().size() - text.size());
  return text_result(i, self, text);
}

// Words between white space, at most `limit` cuts; the last part is what is left.
void split_words(std::string_view rest, std::int64_t limit, bool from_right,
                 const std::function<void(std::string_view)>& add) {
  rest = from_right ? strip_right(rest) : strip_left(rest);
  for (std::int64_t n = 0; !rest.empty() && (limit < 0 || n < limit); ++n) {
    std::size_t cut = from_right ? rest.size() : 0;
    if (from_right) {
      while (cut > 0) {
        std::size_t at = before_character(rest, cut);
        const std::size_t before = at;
        if (is_space(next_code_point(rest, &at))) break;
        cut = before;
      }
      add(rest.substr(cut));
      rest = strip_right(rest.substr(0, cut));
    } else {
      while (cut < rest.size()) {
        std::size_t at = cut;
        if (is_space(next_code_point(rest, &at))) break;
        cut = at;
      }
      add(rest.substr(0, cut));
      rest = strip_left(rest.substr(cut));
    }
  }
  if (!rest.empty()) add(rest);
}

Value split(I& i, const V& self, const Bound& a, bool from_right) {
  const std::int64_t limit = a.integer(1, -1);
  std::string_view rest = self.string();
  Items parts(i.budget());
  const auto add = [&](std::string_view part) {
    i.budget().step();
    parts.push_back(V::of(part, i.budget(), self.text().markup));
  };
  if (a[0] == nullptr || a[0]->is_none()) {
    i.budget().read_characters(rest.size());
    split_words(rest, limit, from_right, add);
  } else {
    const std::string_view separator = a.text(0, "");
    if (separator.empty()) raise("ValueError", "empty separator");
    while (limit < 0 || static_cast<std::int64_t>(parts.size()) < limit) {
      const std::size_t at = from_right ? find_last(rest, separator, i.budget()) : find(rest, separator, i.budget());
      if (at == std::string_view::npos) break;
      add(from_right ? rest.substr(at + separator.size()) : rest.substr(0, at));
      rest = from_right ? rest.substr(0, at) : rest.substr(at + separator.size());
    }
    add(rest);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return V::list(std::move(parts));
}

// The text between two positions given in code points, and the code points before it.
struct Window {
  std::string_view text;
  std::int64_t begin = 0;
  bool valid = true;  // begin is not after the end of the text
};

Window window(I& i, const V& self, const Bound& a) {
  const auto size = static_cast<std::int64_t>(self.text().length);
  const auto clamp = [&](std::int64_t at) { return at < 0 ? std::max<std::int64_t>(at + size, 0) : at; };
  const std::int64_t begin = a[1] == nullptr || a[1]->is_none() ? 0 : clamp(a.integer(1, 0));
  const std::int64_t end = a[2] == nullptr || a[2]->is_none() ? size : std::min(clamp(a.integer(2, 0)), size);
  if (begin > size || begin > end) return {"", begin, false};
  const bool ascii = self.text().is_ascii();
  if (begin == 0 && end == size) return {self.string(), 0, true};
  if (!ascii) i.budget().search_bytes(self.string().size());
  const std::string_view rest = self.string().substr(byte_of_character(self.string(), ascii, begin));
  return {rest.substr(0, byte_of_character(rest, ascii, end - begin)), begin, true};
}

// Position in code points, -1 if it is not there.
std::int64_t find_in(I& i, const V& self, const Bound& a, bool last) {
  const Window part = window(i, self, a);
  const std::string_view wanted = a.text(0, "");
  if (!part.valid) return -1;
  const std::size_t at = last ? find_last(part.text, wanted, i.budget()) : find(part.text, wanted, i.budget());
  if (at == std::string_view::npos) return -1;
  i.budget().search_bytes(at);
  return part.begin + static_cast<std::int64_t>(count_code_points(part.text.substr(0, at)));
}

Value index_in(I& i, const V& self, const Bound& a, bool last) {
  const std::int64_t at = find_in(i, self, a, last);
  if (at < 0) raise("ValueError", "substring not found");
  return V::of(at);
}

bool has_affix(I& i, const V& self, const Bound& a, bool prefix) {
  const Window part = window(i, self, a);
  const auto matches = [&](const Value& affix) {
    i.budget().step();
    if (affix.is_undefined()) affix.raise_undefined();
    if (!affix.is_string()) {
      raise("TypeError", "{} first arg must be str or a tuple of str, not {}", prefix ? "startswith" : "endswith",
            affix.type_name());
    }
    i.budget().read_bytes(affix.string().size());
    return part.valid && (prefix ? part.text.starts_with(affix.string()) : part.text.ends_with(affix.string()));
  };
  if (!a[0]->is(Kind::tuple)) return matches(*a[0]);
  return std::ranges::any_of(a[0]->items(), matches);
}

Value count_in(I& i, const V& self, const Bound& a) {
  const Window part = window(i, self, a);
  const std::string_view wanted = a.text(0, "");
  if (!part.valid) return V::of(0);
  if (wanted.empty()) {
    i.budget().search_bytes(part.text.size());
    return V::of(count_code_points(part.text) + 1);
  }
  std::int64_t count = 0;
  for (std::string_view rest = part.text;; ++count) {
    i.budget().step();
    const std::size_t at = find(rest, wanted, i.budget());
    if (at == std::string_view::npos) return V::of(count);
    rest.remove_prefix(at + wanted.size());
  }
}

Value replace(I& i, const V& self, const Bound& a) {
  String out(i.budget());
  append_replaced(self.string(), a.text(0, ""), a.text(1, ""), a.integer(2, -1), &out, i.budget());
  return text_result(self, std::move(out));
}

Value join(I& i, const V& self, const Bound& a) {
  String out(i.budget());
  std::size_t index = 0;
  for (const Value& part : iterate(*a[0], i.budget())) {
    i.budget().step();
    if (!part.is_string())
      raise("TypeError", "sequence item {}: expected str instance, {} found", index, part.type_name());
    if (index != 0) out += self.string();
    out += part.string();
    i.budget().read_bytes(self.string().size() + part.string().size());
    ++index;
  }
  return text_result(self, std::move(out));
}

Value partition(I& i, const V& self, const Bound& a, bool last) {
  const std::string_view separator = a.text(0, "");
  if (separator.empty()) raise("ValueError", "empty separator");
  const std::string_view text = self.string();
  const std::size_t at = last ? find_last(text, separator, i.budget()) : find(text, separator, i.budget());
  const auto part = [&](std::string_view one) { return V::of(one, i.budget()); };
  if (at == std::string_view::npos) {
    return V::tuple(last ? Items({part(""), part(""), self}, i.budget())
                         : Items({self, part(""), part("")}, i.budget()));
  }
  return V::tuple(
      Items({part(text.substr(0, at)), part(separator), part(text.substr(at + separator.size()))}, i.budget()));
}

// How many characters of `width` the text leaves free.
std::int64_t missing_width(const V& self, std::int64_t width) {
  return width <= 0 ? 0 : width - static_cast<std::int64_t>(self.text().length);
}

Value justify(I& i, const V& self, const Bound& a, char align) {
  const std::int64_t width = a.integer(0, 0);
  const std::string_view fill = a.text(1, " ");
  if (fill.size() > 4 || count_code_points(fill) != 1)
    raise("TypeError", "The fill character must be exactly one character long");
  const std::int64_t missing = missing_width(self, width);
  if (missing <= 0) return self;
  // str.center puts the odd one to the left of an even width and to the right otherwise (CPython's formula).
  const std::int64_t left = align == '<' ? 0 : align == '>' ? missing : missing / 2 + (missing & width & 1);
  String out(i.budget());
  append_repeated(fill, static_cast<std::uint64_t>(left), &out);
  out += self.string();
  append_repeated(fill, static_cast<std::uint64_t>(missing - left), &out);
  i.budget().search_bytes(out.size());
  return text_result(self, std::move(out));
}

Value zero_fill(I& i, const V& self, const Bound& a) {
  const std::int64_t missing = missing_width(self, a.integer(0, 0));
  if (missing <= 0) return self;
  const std::string_view text = self.string();
  const std::size_t sign = text.starts_with("-") || text.starts_with("+") ? 1 : 0;
  String out(text.substr(0, sign), i.budget());
  append_repeated("0", static_cast<std::uint64_t>(missing), &out);
  out += text.substr(sign);
  return text_result(self, std::move(out));
}

Value lines(I& i, const V& self, const Bound& a) {
  Items items(i.budget());
  each_line(self.string(), a.integer(0, 0) != 0, [&](std::string_view line) {
    i.budget().step();
    items.push_back(V::of(line, i.budget(), self.text().markup));
  });
  return V::list(std::move(items));
}

Value expand_tabs(I& i, const V& self, const Bound& a) {
  const std::int64_t size = a.integer(0, 8);
  String out(i.budget());
  std::int64_t column = 0;
  each_code_point(self.string(), [&](char32_t c) {
    if (c == U'\t') {
      const std::int64_t count = size > 0 ? size - column % size : 0;
      i.budget().step();
      append_repeated(" ", static_cast<std::uint64_t>(count), &out);
      column += count;  // what was appended, so it stays below the budget's memory
    } else {
      append_utf8(c, &out);
      column = c == U'\n' || c == U'\r' ? 0 : column + 1;
    }
  });
  return text_result(self, std::move(out));
}

Value remove_affix(I& i, const V& self, const Bound& a, bool prefix) {
  const std::string_view affix = a.text(0, "");
  std::string_view text = self.string();
  if (affix.empty() || !(prefix ? text.starts_with(affix) : text.ends_with(affix))) return self;
  i.budget().read_bytes(affix.size());
  return text_result(i, self, prefix ? text.substr(affix.size()) : text.substr(0, text.size() - affix.size()));
}

using Append = void (*)(std::string_view text, String* out);
template <Append append>
Value changed(I& i, const V& self, const Bound&) {
  String out(i.budget());
  append(self.string(), &out);
  return text_result(self, std::move(out));
}

// The row of str.isNAME.
#define CHORUS_IS(name)                                                                           \
  {                                                                                               \
    "is" name, "", [](I&, const V& s, const Bound&) { return V::of(is_class(s.string(), name)); } \
  }

constexpr std::array<Function, 44> str_methods = {{
    {"strip", "chars", [](I& i, const V& s, const Bound& a) { return strip(i, s, a, true, true); }, Reads::by_itself},
    {"lstrip", "chars", [](I& i, const V& s, const Bound& a) { return strip(i, s, a, true, false); }, Reads::by_itself},
    {"rstrip", "chars", [](I& i, const V& s, const Bound& a) { return strip(i, s, a, false, true); }, Reads::by_itself},
    {"split", "sep maxsplit", [](I& i, const V& s, const Bound& a) { return split(i, s, a, false); }, Reads::by_itself},
    {"rsplit", "sep maxsplit", [](I& i, const V& s, const Bound& a) { return split(i, s, a, true); }, Reads::by_itself},
    {"splitlines", "keepends", lines},
    {"startswith", "=prefix start end",
     [](I& i, const V& s, const Bound& a) { return V::of(has_affix(i, s, a, true)); }, Reads::by_itself},
    {"endswith", "=suffix start end", [](I& i, const V& s, const Bound& a) { return V::of(has_affix(i, s, a, false)); },
     Reads::by_itself},
    {"replace", "=old =new count", replace, Reads::by_itself},
    {"upper", "", changed<append_upper>},
    {"lower", "", changed<append_lower>},
    {"casefold", "", changed<append_lower>},
    {"title", "", changed<append_title>},
    {"capitalize", "", changed<append_capitalized>},
    {"swapcase", "", changed<append_swapped_case>},
    {"find", "=sub start end", [](I& i, const V& s, const Bound& a) { return V::of(find_in(i, s, a, false)); },
     Reads::by_itself},
    {"rfind", "=sub start end", [](I& i, const V& s, const Bound& a) { return V::of(find_in(i, s, a, true)); },
     Reads::by_itself},
    {"index", "=sub start end", [](I& i, const V& s, const Bound& a) { return index_in(i, s, a, false); },
     Reads::by_itself},
    {"rindex", "=sub start end", [](I& i, const V& s, const Bound& a) { return index_in(i, s, a, true); },
     Reads::by_itself},
    {"count", "=sub start end", count_in, Reads::by_itself},
    {"join", "=iterable", join, Reads::by_itself},
    {"format", nullptr,
     [](I& i, const V& s, const Bound& a) { return text_result(s, format_braces(s.string(), a.raw(), i)); }},
    {"format_map", "=mapping",
     [](I& i, const V& s, const Bound& a) {
       Arguments named(i.budget());
       if (!a[0]->is(Kind::dict)) raise("TypeError", "format_map() wants a mapping");
       i.budget().read_items(a[0]->dict().size());
       for (const auto& [key, value] : a[0]->dict().entries()) {
         if (key.is_string()) named.named.push_back({key.string(), value, key});
       }
       return text_result(s, format_braces(s.string(), named, i));
     }},
    {"partition", "=sep", [](I& i, const V& s, const Bound& a) { return partition(i, s, a, false); }, Reads::by_itself},
    {"rpartition", "=sep", [](I& i, const V& s, const Bound& a) { return partition(i, s, a, true); }, Reads::by_itself},
    {"center", "=width fillchar", [](I& i, const V& s, const Bound& a) { return justify(i, s, a, '^'); }, Reads::bytes},
    {"ljust", "=width fillchar", [](I& i, const V& s, const Bound& a) { return justify(i, s, a, '<'); }, Reads::bytes},
    {"rjust", "=width fillchar", [](I& i, const V& s, const Bound& a) { return justify(i, s, a, '>'); }, Reads::bytes},
    {"zfill", "=width", zero_fill, Reads::bytes},
    {"expandtabs", "tabsize", expand_tabs},
    {"removeprefix", "=prefix", [](I& i, const V& s, const Bound& a) { return remove_affix(i, s, a, true); },
     Reads::by_itself},
    {"removesuffix", "=suffix", [](I& i, const V& s, const Bound& a) { return remove_affix(i, s, a, false); },
     Reads::by_itself},
    CHORUS_IS("alpha"),
    CHORUS_IS("digit"),
    CHORUS_IS("alnum"),
    CHORUS_IS("space"),
    CHORUS_IS("upper"),
    CHORUS_IS("lower"),
    CHORUS_IS("numeric"),
    CHORUS_IS("decimal"),
    CHORUS_IS("title"),
    CHORUS_IS("ascii"),
    CHORUS_IS("identifier"),
    CHORUS_IS("printable"),
}};
#undef CHORUS_IS

Value view(I& i, const V& self, const char* type) {
  const std::string_view name = type;
  Budget& budget = i.budget();
  budget.read_items(self.dict().size());
  Items items(budget);
  items.reserve(self.dict().size());
  for (const auto& [key, value] : self.dict().entries()) {
    items.push_back(name == "dict_keys" ? key : name == "dict_values" ? value : V::tuple(Items({key, value}, budget)));
  }
  return V::of(make_object<DictView>(budget, std::move(items), type));
}

constexpr std::array<Function, 5> dict_methods = {{
    {"items", "", [](I& i, const V& s, const Bound&) { return view(i, s, "dict_items"); }},
    {"keys", "", [](I& i, const V& s, const Bound&) { return view(i, s, "dict_keys"); }},
    {"values", "", [](I& i, const V& s, const Bound&) { return view(i, s, "dict_values"); }},
    {"get", "=key default",
     [](I& i, const V& s, const Bound& a) {
       const Value* found = s.dict().find(*a[0], i.budget());
       return found != nullptr ? *found : a[1] != nullptr ? *a[1] : V::none();
     },
     Reads::by_itself},
    {"copy", "", [](I&, const V& s, const Bound&) { return s; }},
}};

Value list_index(I& i, const V& self, const Bound& a) {
  const auto size = static_cast<std::int64_t>(self.items().size());
  const auto clamp = [&](std::int64_t at) {
    return std::min(at < 0 ? std::max<std::int64_t>(at + size, 0) : at, size);
  };
  for (std::int64_t n = clamp(a.integer(1, 0)); n < clamp(a.integer(2, size)); ++n) {
    if (equal(self.items()[static_cast<std::size_t>(n)], *a[0], i.budget())) return V::of(n);
  }
  raise("ValueError", "the value is not in list");
}

Value list_count(I& i, const V& self, const Bound& a) {
  return V::of(std::ranges::count_if(self.items(), [&](const Value& item) { return equal(item, *a[0], i.budget()); }));
}

constexpr std::array<Function, 3> list_methods = {{
    {"index", "=value start stop", list_index, Reads::by_itself},
    {"count", "=value", list_count, Reads::by_itself},
    {"copy", "", [](I&, const V& s, const Bound&) { return s; }},
}};

constexpr std::array<std::string_view, 8> unsafe_list = {"append", "clear", "pop",    "reverse",
                                                         "insert", "sort",  "extend", "remove"};
constexpr std::array<std::string_view, 5> unsafe_dict = {"clear", "pop", "popitem", "setdefault", "update"};

}  // namespace

std::span<const Function> string_methods() {
  return str_methods;
}

const Function* find_method(const Value& self, std::string_view name) {
  std::span<const Function> table;
  switch (self.kind()) {
    case Kind::string:
      table = str_methods;
      break;
    case Kind::dict:
      table = dict_methods;
      break;
    case Kind::list:
      table = list_methods;
      break;
    case Kind::tuple:
      table = std::span(list_methods).first(2);
      break;
    default:
      return nullptr;
  }
  for (const Function& method : table) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

bool is_unsafe_method(const Value& self, std::string_view name) {
  if (self.is(Kind::list)) return std::ranges::find(unsafe_list, name) != unsafe_list.end();
  return self.is(Kind::dict) && std::ranges::find(unsafe_dict, name) != unsafe_dict.end();
}

}  // namespace chorus::jinja
