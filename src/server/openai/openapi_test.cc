#include "server/openai/openapi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "frontend/sampling_options.h"
#include "json/json.h"
#include "server/api.h"

namespace chorus {
namespace {

using testing::UnorderedElementsAreArray;

class OpenApiTest : public testing::Test {
 protected:
  const Json& schema(const char* name) const { return described["components"]["schemas"][name]; }
  const Json described = parse_json(openapi_json("1.2.3")).value();
};

TEST_F(OpenApiTest, DescribesEveryRouteAndNoOther) {
  EXPECT_EQ(described["info"]["version"], "1.2.3");
  std::vector<std::string> names;
  for (const auto& [path, methods] : described["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      if (path == "/v1/models/{name}") continue;  // of the route /v1/models
      std::string name = method + ' ' + path;
      for (std::size_t i = 0; i < method.size(); ++i) name[i] = static_cast<char>(name[i] - 'a' + 'A');
      names.push_back(name);
    }
  }
  EXPECT_THAT(names, UnorderedElementsAreArray(Api::route_names()));
}

// Each sampling option is in both requests: among the common fields, or where the endpoints differ in the endpoint's.
TEST_F(OpenApiTest, DescribesEverySamplingOption) {
  const auto names_of = [](const Json& object) {
    std::set<std::string> names;
    for (const auto& [name, value] : object["properties"].items()) names.insert(name);
    return names;
  };
  const std::set<std::string> common = names_of(schema("Sampling"));
  for (const char* const request : {"CompletionRequest", "ChatRequest"}) {
    const std::set<std::string> own = names_of(schema(request)["allOf"].back());
    for (const SamplingOption& option : sampling_options()) {
      EXPECT_EQ(common.count(option.name) + own.count(option.name), 1U) << request << ' ' << option.name;
    }
  }
}

// A value of a type that the description has not is refused where it says so.
TEST_F(OpenApiTest, TypesAreThoseThatAreRead) {
  for (const auto& [name, value] : schema("Sampling")["properties"].items()) {
    GenerationOptions options;
    const auto& all = sampling_options();
    const bool is_option = std::ranges::any_of(all, [&](const SamplingOption& option) { return option.name == name; });
    if (!is_option) continue;
    const Json wrong = value.contains("type") && value["type"].is_array() && value["type"][0] == "object"
                           ? Json(true)
                           : Json::object();
    const auto applied = apply_sampling_option(&options, name, wrong);
    ASSERT_FALSE(applied.ok()) << name;
    EXPECT_THAT(applied.error().message, testing::HasSubstr(name));
    if (!value.contains("minimum")) continue;
    for (const auto& [bound, step] : {std::pair("minimum", -1), {"maximum", 1}}) {
      const double edge = value[bound].get<double>();
      if (std::abs(edge) > 1e15) continue;  // a seed's
      EXPECT_TRUE(apply_sampling_option(&options, name, value[bound]).ok()) << name << value[bound];
      EXPECT_FALSE(apply_sampling_option(&options, name, Json(edge + step)).ok()) << name << edge + step;
    }
  }
}

}  // namespace
}  // namespace chorus
