# `cmake --install`: headers under include/regla, one library per folder, the program, and a package
# configuration, so that another project says
#
#     find_package(regla REQUIRED)
#     target_link_libraries(mine PRIVATE regla::regla)      # or a layer: regla::core ... regla::training
include(CMakePackageConfigHelpers)

set(installed ${REGLA_LIBRARIES})
list(REMOVE_ITEM installed "" regla_app)

# The umbrella links every library.
add_library(regla_umbrella INTERFACE)
target_link_libraries(regla_umbrella INTERFACE ${installed})
set_target_properties(regla_umbrella PROPERTIES EXPORT_NAME regla)
add_library(regla::regla ALIAS regla_umbrella)

foreach(library IN LISTS installed)
  string(REPLACE regla_ regla:: alias ${library})
  add_library(${alias} ALIAS ${library})
  # A static library's private dependencies are linked by whoever uses it, except for those that
  # consist of headers: an installed regla needs neither Eigen nor the JSON package.
  get_target_property(links ${library} INTERFACE_LINK_LIBRARIES)
  if(links)
    list(REMOVE_ITEM links "$<LINK_ONLY:Eigen3::Eigen>" "$<LINK_ONLY:nlohmann_json::nlohmann_json>")
    set_target_properties(${library} PROPERTIES INTERFACE_LINK_LIBRARIES "${links}")
  endif()
endforeach()

install(TARGETS ${installed} regla_umbrella EXPORT regla)
install(TARGETS regla)  # the program, and what shells know of it
set(completion ${PROJECT_BINARY_DIR}/app/completion)
install(FILES ${completion}/regla DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${completion}/_regla DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${completion}/regla.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
foreach(folder core storage backends autograd layers models text scoring training analyses)
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/regla
    FILES_MATCHING PATTERN "*.h" PATTERN cpu EXCLUDE PATTERN cuda EXCLUDE
    PATTERN json_fields.h EXCLUDE PATTERN mixer_json.h EXCLUDE)
endforeach()

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/regla)
configure_package_config_file(cmake/reglaConfig.cmake.in ${PROJECT_BINARY_DIR}/reglaConfig.cmake
  INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/reglaConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/reglaConfig.cmake ${PROJECT_BINARY_DIR}/reglaConfigVersion.cmake
  cmake/FindOneDNN.cmake DESTINATION ${package_folder})
install(EXPORT regla NAMESPACE regla:: FILE reglaTargets.cmake DESTINATION ${package_folder})
