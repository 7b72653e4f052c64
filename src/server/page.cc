#include "server/page.h"

#include <algorithm>
#include <array>

namespace chorus {

// Made from server/page/ by the build.
extern const std::string_view page_index_html, page_css, page_js, page_svg;

std::span<const PageFile> page_files() {
  static const std::array<PageFile, 4> files = {{
      {"/", "text/html; charset=utf-8", page_index_html},
      {"/page.css", "text/css; charset=utf-8", page_css},
      {"/page.js", "text/javascript; charset=utf-8", page_js},
      {"/page.svg", "image/svg+xml", page_svg},
  }};
  return files;
}

HttpResponse page_response(std::string_view path) {
  const auto found = std::ranges::find(page_files(), path, &PageFile::path);
  if (found == page_files().end()) return error_response(404, "the page has no such file");
  HttpResponse response;
  response.content_type = found->content_type;
  response.body = found->content;
  response.fields = {{"content-security-policy",
                      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
                      "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                     {"x-content-type-options", "nosniff"},
                     {"referrer-policy", "no-referrer"},
                     {"cache-control", "no-cache"}};
  return response;
}

}  // namespace chorus
