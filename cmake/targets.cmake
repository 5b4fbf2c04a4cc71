# regla_library(<folder> SOURCES ... PUBLIC ... PRIVATE ...): one static library per folder, `regla_<folder>`.
add_library(regla_options INTERFACE)
target_compile_features(regla_options INTERFACE cxx_std_20)
# Without errno and trapping arithmetic the compiler may vectorise loops that hold a condition or a
# square root. Neither changes a result.
target_compile_options(regla_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wno-unknown-pragmas>
  $<$<COMPILE_LANGUAGE:CXX>:-fno-math-errno;-fno-trapping-math>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${REGLA_WERROR}>>:-Werror>
  # -Wrestrict misfires in GCC 12 on "literal" + string.
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-psabi;-Wno-restrict>
  # Device lambdas, and constexpr functions of the standard library on the device.
  $<$<COMPILE_LANGUAGE:CUDA>:--extended-lambda;--expt-relaxed-constexpr>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall;-Xcompiler=-Wextra;-Xcompiler=-Wno-unknown-pragmas>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${REGLA_WERROR}>>:-Werror=all-warnings>)
if(REGLA_NATIVE)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "ppc|powerpc")
    target_compile_options(regla_options INTERFACE -mcpu=native)
  else()
    target_compile_options(regla_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
  endif()
endif()
if(REGLA_DEBUG_FILL)
  target_compile_definitions(regla_options INTERFACE REGLA_DEBUG_FILL)
endif()
if(REGLA_SANITIZE)
  target_compile_options(regla_options INTERFACE
    -fsanitize=${REGLA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(regla_options INTERFACE -fsanitize=${REGLA_SANITIZE})
endif()
if(REGLA_FUZZERS)
  target_compile_options(regla_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

set(REGLA_LIBRARIES "" CACHE INTERNAL "")
function(regla_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(regla_${name} STATIC ${ARG_SOURCES})
  target_include_directories(regla_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/regla>)
  target_link_libraries(regla_${name} PUBLIC ${ARG_PUBLIC}
    PRIVATE $<BUILD_INTERFACE:regla_options> ${ARG_PRIVATE})
  target_compile_features(regla_${name} PUBLIC cxx_std_20)
  set_target_properties(regla_${name} PROPERTIES EXPORT_NAME ${name})
  set(REGLA_LIBRARIES "${REGLA_LIBRARIES};regla_${name}" CACHE INTERNAL "")
endfunction()

# regla_base_architecture(<source> ...): compiled for any processor of the architecture, and without
# sanitizers, whose run time starts later than these do.
function(regla_base_architecture)
  set(options -fno-sanitize=all)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64")
    list(APPEND options -march=x86-64 -mtune=generic)
  endif()
  set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "${options}")
endfunction()
