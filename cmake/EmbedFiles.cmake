# embed_files(TARGET NAMESPACE VARIABLE=FILE ...): the bytes of each file as a std::string_view of that name, in a source that is made when the
# project is configured and made again when a file has changed.
function(embed_files target namespace)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/embedded_files.cc)
  set(text "#include <string_view>\nnamespace ${namespace} {\n")
  foreach(pair ${ARGN})
    string(REGEX MATCH "^([^=]+)=(.+)$" pair ${pair})
    set(variable ${CMAKE_MATCH_1})
    set(path ${CMAKE_CURRENT_SOURCE_DIR}/${CMAKE_MATCH_2})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
    file(READ ${path} bytes HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
    string(APPEND text "constexpr unsigned char ${variable}_bytes[] = {${bytes}};\nextern const std::string_view ${variable};\n"
                       "const std::string_view ${variable}(reinterpret_cast<const char*>(${variable}_bytes), sizeof(${variable}_bytes));\n")
  endforeach()
  string(APPEND text "}\n")
  file(GENERATE OUTPUT ${source} CONTENT "${text}")
  target_sources(${target} PRIVATE ${source})
endfunction()
