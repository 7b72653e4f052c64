# CUDA, where it is wanted: sm_80 and, with its own instructions, sm_90a. The runtime is linked statically: a program needs only the driver.
set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real CACHE STRING "GPUs to compile for")
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
# CMake 3.25 does not know how nvcc is asked for C++20.
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
# -fmad=false is -ffp-contract=off. fmt 9 does not know that nvcc's front end evaluates constant expressions, but not its format strings.
add_library(chorus_cuda_options INTERFACE)
target_compile_options(chorus_cuda_options INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-ffp-contract=off>)
target_compile_definitions(chorus_cuda_options INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:FMT_CONSTEVAL= FMT_USE_CONSTEXPR=1>)
