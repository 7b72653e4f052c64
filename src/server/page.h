// The page at /: a playground and the fleet, for people. Its files stand in server/page/ and are part of the program.
#pragma once

#include <span>
#include <string_view>

#include "server/http/response.h"

namespace chorus {

struct PageFile {
  std::string_view path;  // of the request
  std::string_view content_type;
  std::string_view content;
};

std::span<const PageFile> page_files();

// 200 with the file, under a policy that lets the page run its own script and talk to its own server, and nothing else;
// 404 where there is none at `path`.
HttpResponse page_response(std::string_view path);

}  // namespace chorus
