// Filters on lists, dicts and other iterables.
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

Value length(I&, const V& value, const Bound&) {
  const auto size = length_of(value);
  if (!size) raise("TypeError", "object of type '{}' has no len()", value.type_name());
  return V::of(*size);
}

Value first(I& i, const V& value, const Bound&) {
  if (const auto generator = value.object_as<Generator>()) {
    auto item = generator->next();
    return item ? *item : i.undefined("No first item, sequence was empty.");
  }
  if (value.is_sequence() && !value.items().empty()) return value.items().front();
  const Items items = iterate(value, i.budget());
  return items.empty() ? i.undefined("No first item, sequence was empty.") : items.front();
}

Value last(I& i, const V& value, const Bound&) {
  if (value.is_sequence() && !value.items().empty()) return value.items().back();
  if (value.object_as<Generator>()) raise("TypeError", "'generator' object is not reversible");
  const Items items = iterate(value, i.budget());
  return items.empty() ? i.undefined("No last item, sequence was empty.") : items.back();
}

Value join(I& i, const V& value, const Bound& a) {
  String separator(i.budget());
  if (a[0] != nullptr) append_text(*a[0], &separator, i.budget());
  String out(i.budget());
  bool is_first = true;
  for (const V& item : iterate(value, i.budget())) {
    i.budget().step();
    i.budget().read_bytes(separator.size());
    if (!is_first) out += separator;
    is_first = false;
    append_text(a[1] != nullptr ? attribute_path(i, item, *a[1]) : item, &out, i.budget());
  }
  return V::of(std::move(out));
}

// ignore_case of jinja2: what sorting and uniqueness compare.
Value comparable(I& i, const V& value, bool case_sensitive) {
  i.budget().step();
  if (!value.is_string() || case_sensitive) return value;
  i.budget().read_characters(value.string().size());
  String lower(i.budget());
  append_lower(value.string(), &lower);
  return V::of(std::move(lower));
}

// Stable, by keys made once; descending keeps equal items in their order too, as Python's reverse=True does.
Items sort_by(I& i, Items items, const Items& keys, bool descending) {
  Vector<std::size_t> places(items.size(), 0, i.budget());
  const Budget::Held sorting(i.budget(), items.size() * sizeof(std::size_t));  // stable_sort's buffer
  for (std::size_t n = 0; n < places.size(); ++n) places[n] = n;
  i.budget().step(items.size());
  std::stable_sort(places.begin(), places.end(), [&](std::size_t a, std::size_t b) {
    const auto result =
        descending ? order(keys[b], keys[a], "<", i.budget()) : order(keys[a], keys[b], "<", i.budget());
    return result && *result < 0;
  });
  Items sorted(i.budget());
  sorted.reserve(items.size());
  for (const std::size_t place : places) sorted.push_back(std::move(items[place]));
  return sorted;
}

Value sort(I& i, const V& value, const Bound& a) {
  Items items = iterate(value, i.budget());
  const bool case_sensitive = a.flag(1, false);
  Items paths(i.budget());
  if (a[2] != nullptr && a[2]->is_string()) {
    const V parts = i.call(i.attribute(*a[2], "split"), Arguments(Items({V::of(",", i.budget())}, i.budget())));
    paths = Items(parts.items(), i.budget());
  } else if (a[2] != nullptr) {
    paths.push_back(*a[2]);
  }
  Items keys(i.budget());
  for (const V& item : items) {
    if (paths.empty()) {
      keys.push_back(comparable(i, item, case_sensitive));
      continue;
    }
    Items key(i.budget());
    for (const V& path : paths) key.push_back(comparable(i, attribute_path(i, item, path), case_sensitive));
    keys.push_back(V::list(std::move(key)));
  }
  return V::list(sort_by(i, std::move(items), keys, a.integer(0, 0) != 0));
}

Value dict_sort(I& i, const V& value, const Bound& a) {
  if (value.is_undefined()) value.raise_undefined();
  if (!value.is(Kind::dict)) raise("AttributeError", "'{}' object has no attribute 'items'", value.type_name());
  const std::string_view by = a.text(1, "key");
  if (by != "key" && by != "value") raise("FilterArgumentError", "You can only sort by either \"key\" or \"value\"");
  Items items(i.budget());
  Items keys(i.budget());
  for (const auto& [key, item] : value.dict().entries()) {
    items.push_back(V::tuple(Items({key, item}, i.budget())));
    keys.push_back(comparable(i, by == "key" ? key : item, a.flag(0, false)));
  }
  return V::list(sort_by(i, std::move(items), keys, a.flag(2, false)));
}

// a[0]: case_sensitive, a[1]: attribute.
Value key_of(I& i, const V& item, const Bound& a) {
  return comparable(i, a[1] != nullptr ? attribute_path(i, item, *a[1]) : item, a.flag(0, false));
}

Value unique(I& i, const V& value, const Bound& a) {
  Items kept(i.budget());
  Dict seen(i.budget());
  for (const V& item : iterate(value, i.budget())) {
    const V key = key_of(i, item, a);
    if (seen.find(key, i.budget()) != nullptr) continue;
    seen.append(key, V::none());
    kept.push_back(item);
  }
  return make_generator(std::move(kept));
}

Value extreme(I& i, const V& value, const Bound& a, bool greatest) {
  const Items items = iterate(value, i.budget());
  if (items.empty()) return i.undefined("No aggregated item, sequence was empty.");
  std::size_t best = 0;
  V best_key = key_of(i, items[0], a);
  for (std::size_t n = 1; n < items.size(); ++n) {
    V key = key_of(i, items[n], a);
    const auto result = order(key, best_key, greatest ? ">" : "<", i.budget());
    if (!result || (greatest ? *result <= 0 : *result >= 0)) continue;
    best = n;
    best_key = std::move(key);
  }
  return items[best];
}

Value reverse(I& i, const V& value, const Bound&) {
  if (value.is_string()) return *slice(value, V::none(), V::none(), V::of(-1), i.budget());
  const bool lazy = value.is_sequence() || value.is(Kind::dict) || (value.is(Kind::object) && value.object()->length());
  Items items = iterate(value, i.budget());
  std::reverse(items.begin(), items.end());
  return lazy ? make_generator(std::move(items), value.is(Kind::list) ? "list_reverseiterator" : "reversed")
              : V::list(std::move(items));
}

Value map(I& i, const V& value, const Bound& a) {
  if (!truth(value)) return make_generator(Items(i.budget()));  // none too: jinja2 asks before it iterates
  const Arguments& raw = a.raw();
  const V* attribute = nullptr;
  const V* otherwise = nullptr;
  if (raw.positional.empty()) {
    for (const Argument& argument : raw.named) {
      if (argument.name == "attribute") {
        attribute = &argument.value;
      } else if (argument.name == "default") {
        otherwise = &argument.value;
      } else {
        raise("FilterArgumentError", "Unexpected keyword argument {}", shown(argument.name));
      }
    }
    if (attribute == nullptr) raise("FilterArgumentError", "map requires a filter argument");
  }
  Arguments rest(i.budget());
  if (attribute == nullptr) {
    if (!raw.positional[0].is_string()) raise("TypeError", "map wants the name of a filter");
    rest.positional.assign(raw.positional.begin() + 1, raw.positional.end());
    rest.named = raw.named;
  }
  Items mapped(i.budget());
  for (const V& item : iterate(value, i.budget())) {
    if (attribute == nullptr) {
      mapped.push_back(i.call_filter(raw.positional[0].string(), item, rest));
      continue;
    }
    mapped.push_back(attribute_path(i, item, *attribute, otherwise));
  }
  return make_generator(std::move(mapped));
}

Value choose(I& i, const V& value, const Bound& a, bool wanted, bool by_attribute) {
  if (!truth(value)) return make_generator(Items(i.budget()));
  const Arguments& raw = a.raw();
  const std::size_t skip = by_attribute ? 1 : 0;
  if (raw.positional.size() < skip) raise("FilterArgumentError", "Missing parameter for attribute name");
  const V* test = raw.positional.size() > skip ? &raw.positional[skip] : nullptr;
  if (test != nullptr && !test->is_string()) raise("TypeError", "the name of a test is a string");
  Arguments rest(i.budget());
  rest.named = raw.named;
  if (test != nullptr)
    rest.positional.assign(raw.positional.begin() + static_cast<std::ptrdiff_t>(skip) + 1, raw.positional.end());
  Items chosen(i.budget());
  for (const V& item : iterate(value, i.budget())) {
    i.budget().step();
    const V tested = by_attribute ? attribute_path(i, item, raw.positional[0]) : item;
    const bool result = test != nullptr ? i.call_test(test->string(), tested, rest) : truth(tested);
    if (result == wanted) chosen.push_back(item);
  }
  return make_generator(std::move(chosen));
}

Value batch(I& i, const V& value, const Bound& a) {
  const std::int64_t size = a.integer(0, 0);
  Items batches(i.budget());
  Items current(i.budget());
  for (const V& item : iterate(value, i.budget())) {
    if (static_cast<std::int64_t>(current.size()) == size)
      batches.push_back(V::list(std::exchange(current, Items(i.budget()))));
    current.push_back(item);
  }
  if (!current.empty()) {
    if (a[1] != nullptr && !a[1]->is_none() && static_cast<std::int64_t>(current.size()) < size) {
      i.budget().read_items(static_cast<std::uint64_t>(size));
      current.resize(static_cast<std::size_t>(size), *a[1]);
    }
    batches.push_back(V::list(std::move(current)));
  }
  return make_generator(std::move(batches));
}

Value slices(I& i, const V& value, const Bound& a) {
  const Items items = iterate(value, i.budget());
  const std::int64_t count = a.integer(0, 0);
  if (count == 0) raise("ZeroDivisionError", "integer division or modulo by zero");
  if (count < 0) return make_generator(Items(i.budget()));
  i.budget().step(static_cast<std::uint64_t>(count));
  const auto size = static_cast<std::int64_t>(items.size());
  Items parts(i.budget());
  std::int64_t at = 0;
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t end = at + size / count + (n < size % count ? 1 : 0);
    Items part(items.begin() + at, items.begin() + end, i.budget());
    if (a[1] != nullptr && !a[1]->is_none() && n >= size % count) part.push_back(*a[1]);
    parts.push_back(V::list(std::move(part)));
    at = end;
  }
  return make_generator(std::move(parts));
}

Value group_by(I& i, const V& value, const Bound& a) {
  const bool case_sensitive = a.flag(2, false);
  Items items = iterate(value, i.budget());
  Items pairs(i.budget());
  Items keys(i.budget());
  for (const V& item : items) {
    V key = attribute_path(i, item, *a[0]);
    if (key.is_undefined() && a[1] != nullptr && !a[1]->is_none()) key = *a[1];
    keys.push_back(comparable(i, key, case_sensitive));
    pairs.push_back(V::tuple(Items({keys.back(), key, item}, i.budget())));
  }
  pairs = sort_by(i, std::move(pairs), keys, false);
  Items groups(i.budget());
  for (std::size_t n = 0; n < pairs.size();) {
    const V& key = pairs[n].items()[0];
    const V& name = pairs[n].items()[1];
    Items members(i.budget());
    for (; n < pairs.size() && equal(pairs[n].items()[0], key, i.budget()); ++n) members.push_back(pairs[n].items()[2]);
    groups.push_back(V::tuple(Items({name, V::list(std::move(members))}, i.budget())));
  }
  return V::list(std::move(groups));
}

Value items_of(I& i, const V& value, const Bound&) {
  if (value.is_undefined()) return make_generator(Items(i.budget()));
  if (!value.is(Kind::dict)) raise("TypeError", "Can only get item pairs from a mapping.");
  i.budget().read_items(value.dict().size());
  Items pairs(i.budget());
  for (const auto& [key, item] : value.dict().entries()) pairs.push_back(V::tuple(Items({key, item}, i.budget())));
  return make_generator(std::move(pairs));
}

Value default_value(I& i, const V& value, const Bound& a) {
  const bool use = value.is_undefined() || (a.flag(1, false) && !truth(value));
  return !use ? value : a[0] != nullptr ? *a[0] : V::of("", i.budget());
}

Value sum(I& i, const V& value, const Bound& a) {
  V total = a[1] != nullptr ? *a[1] : V::of(0);
  if (total.is_string()) raise("TypeError", "sum() can't sum strings [use ''.join(seq) instead]");
  for (const V& item : iterate(value, i.budget())) {
    const bool by_attribute = a[0] != nullptr && !a[0]->is_none();
    i.budget().step();
    total = binary("+", total, by_attribute ? attribute_path(i, item, *a[0]) : item, i.budget());
  }
  return total;
}

constexpr std::array<Function, 24> filters = {{
    {"length", "", length, Reads::by_itself},
    {"count", "", length, Reads::by_itself},
    {"first", "", first, Reads::by_itself},
    {"last", "", last, Reads::by_itself},
    {"list", "", [](I& i, const V& v, const Bound&) { return V::list(iterate(v, i.budget())); }},
    {"join", "d attribute", join, Reads::by_itself},
    {"sort", "reverse case_sensitive attribute", sort},
    {"dictsort", "case_sensitive by reverse", dict_sort},
    {"unique", "case_sensitive attribute", unique},
    {"min", "case_sensitive attribute", [](I& i, const V& v, const Bound& a) { return extreme(i, v, a, false); }},
    {"max", "case_sensitive attribute", [](I& i, const V& v, const Bound& a) { return extreme(i, v, a, true); }},
    {"reverse", "", reverse},
    {"map", nullptr, map},
    {"select", nullptr, [](I& i, const V& v, const Bound& a) { return choose(i, v, a, true, false); }},
    {"reject", nullptr, [](I& i, const V& v, const Bound& a) { return choose(i, v, a, false, false); }},
    {"selectattr", nullptr, [](I& i, const V& v, const Bound& a) { return choose(i, v, a, true, true); }},
    {"rejectattr", nullptr, [](I& i, const V& v, const Bound& a) { return choose(i, v, a, false, true); }},
    {"batch", "=linecount fill_with", batch},
    {"slice", "=slices fill_with", slices},
    {"groupby", "=attribute default case_sensitive", group_by},
    {"items", "", items_of, Reads::by_itself},
    {"default", "default_value boolean", default_value, Reads::by_itself},
    {"d", "default_value boolean", default_value, Reads::by_itself},
    {"sum", "attribute start", sum},
}};

}  // namespace

std::span<const Function> sequence_filters() {
  return filters;
}

}  // namespace chorus::jinja
