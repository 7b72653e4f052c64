// Methods of strings, dicts, lists and tuples, as Python has them.
#include <algorithm>
#include <array>

#include "jinja/builtins.h"
#include "jinja/objects.h"
#include "jinja/operators.h"
#include "jinja/text.h"

namespace chorus::jinja {
namespace {

using I = Interpreter;
using V = Value;

Value text_result(I& i, const V& self, std::string text) {
  return make_string(std::move(text), i.budget(), self.text().markup);
}

std::optional<std::string> characters(const Bound& a) {
  if (a[0] == nullptr || a[0]->is_none()) return std::nullopt;
  return a.text(0, "");
}

Value split(I& i, const V& self, const Bound& a, bool from_right) {
  const std::int64_t limit = a.integer(1, -1);
  std::string_view rest = self.string();
  i.budget().string_of(rest.size() * 4);
  Items parts;
  const auto add = [&](std::string_view part) { parts.push_back(Value::of(std::string(part), self.text().markup)); };
  const auto more = [&] { return limit < 0 || static_cast<std::int64_t>(parts.size()) < limit; };
  if (a[0] == nullptr || a[0]->is_none()) {
    rest = from_right ? strip_right(rest) : strip_left(rest);
    while (!rest.empty() && more()) {
      // A word is what stripping by "not white space" would take: walk to the next white space.
      std::size_t cut = from_right ? rest.size() : 0;
      if (from_right) {
        while (cut > 0 && strip_right(rest.substr(0, cut)).size() == cut) {
          do {
            --cut;
          } while (cut > 0 && (static_cast<unsigned char>(rest[cut]) & 0xc0) == 0x80);
        }
        add(rest.substr(cut));
        rest = strip_right(rest.substr(0, cut));
      } else {
        while (cut < rest.size() && strip_left(rest.substr(cut)).size() == rest.size() - cut) {
          do {
            ++cut;
          } while (cut < rest.size() && (static_cast<unsigned char>(rest[cut]) & 0xc0) == 0x80);
        }
        add(rest.substr(0, cut));
        rest = strip_left(rest.substr(cut));
      }
    }
    if (!rest.empty()) add(rest);
  } else {
    const std::string separator = a.text(0, "");
    if (separator.empty()) raise("ValueError", "empty separator");
    while (more()) {
      const std::size_t at = from_right ? rest.rfind(separator) : rest.find(separator);
      if (at == std::string_view::npos) break;
      add(from_right ? rest.substr(at + separator.size()) : rest.substr(0, at));
      rest = from_right ? rest.substr(0, at) : rest.substr(at + separator.size());
    }
    add(rest);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  i.budget().list_of(parts.size());
  return Value::list(std::move(parts));
}

// The text between two positions given in code points, and the bytes before it.
struct Window {
  std::string text;
  std::int64_t begin = 0;
  bool valid = true;  // begin is not after the end of the text
};

Window window(I& i, const V& self, const Bound& a) {
  const auto size = static_cast<std::int64_t>(self.text().length);
  const auto clamp = [&](std::int64_t at) { return at < 0 ? std::max<std::int64_t>(at + size, 0) : at; };
  const std::int64_t begin = a[1] == nullptr || a[1]->is_none() ? 0 : clamp(a.integer(1, 0));
  const std::int64_t end = a[2] == nullptr || a[2]->is_none() ? size : std::min(clamp(a.integer(2, 0)), size);
  if (begin > size || begin > end) return {"", begin, false};
  return {slice(self, V::of(begin), V::of(end), V::none(), i.budget())->string(), begin, true};
}

// Position in code points, -1 if it is not there.
std::int64_t find_in(I& i, const V& self, const Bound& a, bool last) {
  const Window part = window(i, self, a);
  const std::string wanted = a.text(0, "");
  if (!part.valid) return -1;
  const std::size_t at = last ? part.text.rfind(wanted) : part.text.find(wanted);
  if (at == std::string::npos) return -1;
  return part.begin + static_cast<std::int64_t>(count_code_points(std::string_view(part.text).substr(0, at)));
}

Value index_in(I& i, const V& self, const Bound& a, bool last) {
  const std::int64_t at = find_in(i, self, a, last);
  if (at < 0) raise("ValueError", "substring not found");
  return V::of(at);
}

bool has_affix(I& i, const V& self, const Bound& a, bool prefix) {
  const Window part = window(i, self, a);
  const auto matches = [&](const Value& affix) {
    if (affix.is_undefined()) affix.raise_undefined();
    if (!affix.is_string()) {
      raise("TypeError", "{} first arg must be str or a tuple of str, not {}", prefix ? "startswith" : "endswith",
            affix.type_name());
    }
    return part.valid && (prefix ? part.text.starts_with(affix.string()) : part.text.ends_with(affix.string()));
  };
  if (!a[0]->is(Kind::tuple)) return matches(*a[0]);
  return std::ranges::any_of(a[0]->items(), matches);
}

Value count_in(I& i, const V& self, const Bound& a) {
  const Window part = window(i, self, a);
  const std::string wanted = a.text(0, "");
  if (!part.valid) return V::of(0);
  if (wanted.empty()) return V::of(count_code_points(part.text) + 1);
  std::int64_t count = 0;
  for (std::size_t at = part.text.find(wanted); at != std::string::npos;
       at = part.text.find(wanted, at + wanted.size()))
    ++count;
  return V::of(count);
}

Value replace(I& i, const V& self, const Bound& a) {
  const std::string from = a.text(0, "");
  const std::string to = a.text(1, "");
  const std::uint64_t places = self.string().size() / std::max<std::size_t>(from.size(), 1) + 1;
  i.budget().string_of(self.string().size() + std::min<std::uint64_t>(places * to.size(), 1ull << 40));
  return text_result(i, self, replace_all(self.string(), from, to, a.integer(2, -1)));
}

Value join(I& i, const V& self, const Bound& a) {
  std::string out;
  bool first = true;
  std::size_t index = 0;
  for (const Value& part : iterate(*a[0], i.budget())) {
    if (!part.is_string())
      raise("TypeError", "sequence item {}: expected str instance, {} found", index, part.type_name());
    if (!first) out += self.string();
    out += part.string();
    i.budget().string_of(out.size() / 64);
    first = false;
    ++index;
  }
  return text_result(i, self, std::move(out));
}

Value partition(I& i, const V& self, const Bound& a, bool last) {
  const std::string separator = a.text(0, "");
  if (separator.empty()) raise("ValueError", "empty separator");
  const std::string& text = self.string();
  const std::size_t at = last ? text.rfind(separator) : text.find(separator);
  i.budget().string_of(text.size());
  if (at == std::string::npos) {
    return last ? V::tuple({V::of(""), V::of(""), self}) : V::tuple({self, V::of(""), V::of("")});
  }
  return V::tuple({V::of(text.substr(0, at)), V::of(separator), V::of(text.substr(at + separator.size()))});
}

Value justify(I& i, const V& self, const Bound& a, char align) {
  const std::int64_t width = a.integer(0, 0);
  const std::string fill = a.text(1, " ");
  if (count_code_points(fill) != 1) raise("TypeError", "The fill character must be exactly one character long");
  const std::int64_t missing = width - static_cast<std::int64_t>(self.text().length);
  if (missing <= 0) return self;
  i.budget().string_of(static_cast<std::uint64_t>(missing) * fill.size());
  // str.center puts the odd one to the left of an even width and to the right otherwise (CPython's formula).
  const std::int64_t left = align == '<' ? 0 : align == '>' ? missing : missing / 2 + (missing & width & 1);
  std::string out;
  for (std::int64_t n = 0; n < left; ++n) out += fill;
  out += self.string();
  for (std::int64_t n = left; n < missing; ++n) out += fill;
  return text_result(i, self, std::move(out));
}

Value zero_fill(I& i, const V& self, const Bound& a) {
  const std::int64_t missing = a.integer(0, 0) - static_cast<std::int64_t>(self.text().length);
  if (missing <= 0) return self;
  i.budget().string_of(static_cast<std::uint64_t>(missing));
  const bool has_sign = self.string().starts_with("-") || self.string().starts_with("+");
  std::string out = self.string();
  out.insert(has_sign ? 1 : 0, static_cast<std::size_t>(missing), '0');
  return text_result(i, self, std::move(out));
}

Value lines(I& i, const V& self, const Bound& a) {
  i.budget().string_of(self.string().size() * 4);
  Items items;
  for (std::string& line : split_lines(self.string(), a.integer(0, 0) != 0))
    items.push_back(V::of(std::move(line), self.text().markup));
  i.budget().list_of(items.size());
  return V::list(std::move(items));
}

Value expand_tabs(I& i, const V& self, const Bound& a) {
  const std::int64_t size = a.integer(0, 8);
  std::string out;
  std::int64_t column = 0;
  for (const char32_t c : to_code_points(self.string())) {
    if (c == U'\t') {
      const std::int64_t count = size > 0 ? size - column % size : 0;
      i.budget().string_of(static_cast<std::uint64_t>(count));
      out.append(static_cast<std::size_t>(count), ' ');
      column += count;
    } else {
      append_utf8(c, &out);
      column = c == U'\n' || c == U'\r' ? 0 : column + 1;
    }
  }
  return text_result(i, self, std::move(out));
}

Value remove_affix(I& i, const V& self, const Bound& a, bool prefix) {
  const std::string affix = a.text(0, "");
  const std::string& text = self.string();
  if (affix.empty() || !(prefix ? text.starts_with(affix) : text.ends_with(affix))) return self;
  return text_result(i, self, prefix ? text.substr(affix.size()) : text.substr(0, text.size() - affix.size()));
}

// The row of str.isNAME.
template <std::size_t skip = 2>
Value is_class_of(const char* name, const V& self) {
  return V::of(is_class(self.string(), std::string_view(name).substr(skip)));
}
#define CHORUS_IS(name)                                                         \
  {                                                                             \
    name, "", [](I&, const V& s, const Bound&) { return is_class_of(name, s); } \
  }

constexpr std::array<Function, 44> str_methods = {{
    {"strip", "chars",
     [](I& i, const V& s, const Bound& a) {
       return text_result(i, s, std::string(strip_right(strip_left(s.string(), characters(a)), characters(a))));
     }},
    {"lstrip", "chars",
     [](I& i, const V& s, const Bound& a) {
       return text_result(i, s, std::string(strip_left(s.string(), characters(a))));
     }},
    {"rstrip", "chars",
     [](I& i, const V& s, const Bound& a) {
       return text_result(i, s, std::string(strip_right(s.string(), characters(a))));
     }},
    {"split", "sep maxsplit", [](I& i, const V& s, const Bound& a) { return split(i, s, a, false); }},
    {"rsplit", "sep maxsplit", [](I& i, const V& s, const Bound& a) { return split(i, s, a, true); }},
    {"splitlines", "keepends", lines},
    {"startswith", "=prefix start end",
     [](I& i, const V& s, const Bound& a) { return V::of(has_affix(i, s, a, true)); }},
    {"endswith", "=suffix start end",
     [](I& i, const V& s, const Bound& a) { return V::of(has_affix(i, s, a, false)); }},
    {"replace", "=old =new count", replace},
    {"upper", "", [](I& i, const V& s, const Bound&) { return text_result(i, s, to_upper(s.string())); }},
    {"lower", "", [](I& i, const V& s, const Bound&) { return text_result(i, s, to_lower(s.string())); }},
    {"casefold", "", [](I& i, const V& s, const Bound&) { return text_result(i, s, to_lower(s.string())); }},
    {"title", "", [](I& i, const V& s, const Bound&) { return text_result(i, s, title_case(s.string())); }},
    {"capitalize", "", [](I& i, const V& s, const Bound&) { return text_result(i, s, capitalize(s.string())); }},
    {"swapcase", "", [](I& i, const V& s, const Bound&) { return text_result(i, s, swap_case(s.string())); }},
    {"find", "=sub start end", [](I& i, const V& s, const Bound& a) { return V::of(find_in(i, s, a, false)); }},
    {"rfind", "=sub start end", [](I& i, const V& s, const Bound& a) { return V::of(find_in(i, s, a, true)); }},
    {"index", "=sub start end", [](I& i, const V& s, const Bound& a) { return index_in(i, s, a, false); }},
    {"rindex", "=sub start end", [](I& i, const V& s, const Bound& a) { return index_in(i, s, a, true); }},
    {"count", "=sub start end", count_in},
    {"join", "=iterable", join},
    {"format", nullptr,
     [](I& i, const V& s, const Bound& a) { return text_result(i, s, format_braces(s.string(), a.raw(), i)); }},
    {"format_map", "=mapping",
     [](I& i, const V& s, const Bound& a) {
       Arguments named;
       if (!a[0]->is(Kind::dict)) raise("TypeError", "format_map() wants a mapping");
       for (const auto& [key, value] : a[0]->dict().entries()) {
         if (key.is_string()) named.named.emplace_back(key.string(), value);
       }
       return text_result(i, s, format_braces(s.string(), named, i));
     }},
    {"partition", "=sep", [](I& i, const V& s, const Bound& a) { return partition(i, s, a, false); }},
    {"rpartition", "=sep", [](I& i, const V& s, const Bound& a) { return partition(i, s, a, true); }},
    {"center", "=width fillchar", [](I& i, const V& s, const Bound& a) { return justify(i, s, a, '^'); }},
    {"ljust", "=width fillchar", [](I& i, const V& s, const Bound& a) { return justify(i, s, a, '<'); }},
    {"rjust", "=width fillchar", [](I& i, const V& s, const Bound& a) { return justify(i, s, a, '>'); }},
    {"zfill", "=width", zero_fill},
    {"expandtabs", "tabsize", expand_tabs},
    {"removeprefix", "=prefix", [](I& i, const V& s, const Bound& a) { return remove_affix(i, s, a, true); }},
    {"removesuffix", "=suffix", [](I& i, const V& s, const Bound& a) { return remove_affix(i, s, a, false); }},
    CHORUS_IS("isalpha"),
    CHORUS_IS("isdigit"),
    CHORUS_IS("isalnum"),
    CHORUS_IS("isspace"),
    CHORUS_IS("isupper"),
    CHORUS_IS("islower"),
    CHORUS_IS("isnumeric"),
    CHORUS_IS("isdecimal"),
    CHORUS_IS("istitle"),
    CHORUS_IS("isascii"),
    CHORUS_IS("isidentifier"),
    CHORUS_IS("isprintable"),
}};
#undef CHORUS_IS

Value view(const V& self, const char* type) {
  const std::string_view name = type;
  Items items;
  for (const auto& [key, value] : self.dict().entries()) {
    items.push_back(name == "dict_keys" ? key : name == "dict_values" ? value : V::tuple({key, value}));
  }
  return V::of(std::make_shared<DictView>(std::move(items), type));
}

constexpr std::array<Function, 5> dict_methods = {{
    {"items", "",
     [](I& i, const V& s, const Bound&) {
       i.budget().list_of(s.dict().size());
       return view(s, "dict_items");
     }},
    {"keys", "",
     [](I& i, const V& s, const Bound&) {
       i.budget().list_of(s.dict().size());
       return view(s, "dict_keys");
     }},
    {"values", "",
     [](I& i, const V& s, const Bound&) {
       i.budget().list_of(s.dict().size());
       return view(s, "dict_values");
     }},
    {"get", "=key default",
     [](I& i, const V& s, const Bound& a) {
       i.budget().step(s.dict().size() / 16);
       const Value* found = s.dict().find(*a[0]);
       return found != nullptr ? *found : a[1] != nullptr ? *a[1] : V::none();
     }},
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
  raise("ValueError", "{} is not in list", repr(*a[0], i.budget()));
}

Value list_count(I& i, const V& self, const Bound& a) {
  return V::of(std::ranges::count_if(self.items(), [&](const Value& item) { return equal(item, *a[0], i.budget()); }));
}

constexpr std::array<Function, 3> list_methods = {{
    {"index", "=value start stop", list_index},
    {"count", "=value", list_count},
    {"copy", "", [](I&, const V& s, const Bound&) { return s; }},
}};

constexpr std::array<std::string_view, 8> unsafe_list = {"append", "clear", "pop",    "reverse",
                                                         "insert", "sort",  "extend", "remove"};
constexpr std::array<std::string_view, 5> unsafe_dict = {"clear", "pop", "popitem", "setdefault", "update"};

}  // namespace

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
    if (method.name != nullptr && method.name == name) return &method;
  }
  return nullptr;
}

bool is_unsafe_method(const Value& self, std::string_view name) {
  if (self.is(Kind::list)) return std::ranges::find(unsafe_list, name) != unsafe_list.end();
  return self.is(Kind::dict) && std::ranges::find(unsafe_dict, name) != unsafe_dict.end();
}

}  // namespace chorus::jinja
