# chorus_room(NAME DEPENDS room... LIBRARIES target...)
#
# A room is a folder src/NAME: every *.cc but *_test.cc becomes the static library chorus_NAME, every *_test.cc goes into
# the test program NAME_test. DEPENDS is the room's whole list of lower rooms, and so the architecture.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(GTest QUIET)
find_package(fmt REQUIRED)

# -ffp-contract=off: a multiply and an add are fused only where a kernel says so by name. Otherwise the compiler would fuse
# in one loop and not in its remainder, and the same row would give other bits in another batch (design.md section 1).
add_library(chorus_options INTERFACE)
target_compile_options(chorus_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Werror -ffp-contract=off -fno-math-errno>)
# What g++, which builds all else, does not say of the same code: clang takes calls inside libstdc++ 12's stable_sort for ours
# (get_temporary_buffer, deprecated), wants braces where an aggregate's are elided, and does not know g++'s warnings and pragmas.
target_compile_options(chorus_options INTERFACE
  $<$<CXX_COMPILER_ID:Clang>:-Wno-deprecated-declarations -Wno-missing-braces -Wno-unknown-pragmas -Wno-unknown-warning-option>)
target_include_directories(chorus_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(chorus_options INTERFACE Threads::Threads)
# The presets asan and tsan leave CMAKE_BUILD_TYPE empty of flags: with -O1 -g1 the programs compile in half the time of -O2
# -g, and a report still has its lines.
if(CHORUS_SANITIZE)
  add_compile_options(-fsanitize=${CHORUS_SANITIZE} -O1 -g1 -DNDEBUG -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${CHORUS_SANITIZE})
endif()
find_program(CHORUS_MOLD mold)
if(CHORUS_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

set(CHORUS_TEST_TIMEOUT_S 600)
if(CHORUS_SANITIZE)
  set(CHORUS_TEST_TIMEOUT_S 3600)
endif()

function(chorus_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE chorus_options ${ARG_LIBRARIES} GTest::gtest GTest::gmock GTest::gtest_main)
  # What a test runs is the library's code: its own compiles in 60 % of the time this way.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  # Those that count allocations replace operator new by malloc, which GCC 12 takes for a mistake once it inlines it.
  foreach(source ${ARG_SOURCES})
    file(STRINGS ${source} replaces_new REGEX "operator new")
    if(replaces_new)
      set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS -Wno-mismatched-new-delete)
    endif()
  endforeach()
  # Only for the tests that read files: a command line with the checkout's path in it is compiled anew in every checkout.
  foreach(source ${ARG_SOURCES})
    file(STRINGS ${source} reads_files REGEX "CHORUS_TEST_DATA|CHORUS_MODELS|test_tokenizers\\.h")
    if(reads_files)
      set_property(SOURCE ${source} APPEND PROPERTY COMPILE_DEFINITIONS CHORUS_TEST_DATA="${CMAKE_SOURCE_DIR}/tests/data"
                                                                        CHORUS_MODELS="${CMAKE_SOURCE_DIR}/models")
    endif()
  endforeach()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${CHORUS_TEST_TIMEOUT_S})
endfunction()

function(chorus_room name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;LIBRARIES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc ${CMAKE_CURRENT_SOURCE_DIR}/*/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_test|/main)\\.cc$")
  set(depends ${ARG_DEPENDS})
  list(TRANSFORM depends PREPEND chorus_)
  if(sources)
    add_library(chorus_${name} STATIC ${sources})
    target_link_libraries(chorus_${name} PRIVATE chorus_options PUBLIC ${depends} ${ARG_LIBRARIES})
  else()
    add_library(chorus_${name} INTERFACE)
    target_link_libraries(chorus_${name} INTERFACE ${depends} ${ARG_LIBRARIES})
  endif()
  if(CHORUS_TESTS AND tests)
    chorus_test(${name}_test SOURCES ${tests} LIBRARIES chorus_${name})
  endif()
endfunction()
