# Installs a build into a fresh folder, builds the consumer beside this file against it and runs it.
#     cmake -DBUILD=<build folder> -DWORK=<scratch folder> -DGENERATOR=... -DCOMPILER=... -DFLAGS=... \
#           -P install_test.cmake
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "install test: `${command}` gave ${status}\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR} -B ${WORK}/build -G ${GENERATOR}
  -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_FLAGS=${FLAGS} -DCMAKE_BUILD_TYPE=Release
  -DCMAKE_PREFIX_PATH=${WORK}/prefix)
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer)
file(GLOB program ${WORK}/prefix/bin/regla)
if(program)
  foreach(script share/bash-completion/completions/regla share/zsh/site-functions/_regla
      share/fish/vendor_completions.d/regla.fish)
    file(READ ${WORK}/prefix/${script} text)
    if(NOT text MATCHES "bench")
      message(FATAL_ERROR "install test: ${script} does not know the commands")
    endif()
  endforeach()
  run(${program} devices)
endif()
