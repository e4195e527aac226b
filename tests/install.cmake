# install.cmake - installs into a fresh folder, moves it, builds docs/example.c against what is installed, once with
# pkg-config and once with find_package, and runs both.
#
#   cmake -D BUILD=DIR -D SOURCE=DIR -D COMPILER=cc -D "FLAGS=..." -D CONFIG=Release -P tests/install.cmake
cmake_minimum_required(VERSION 3.25)

function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${what} failed (${result}):\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

set(work ${BUILD}/install-test)
file(REMOVE_RECURSE ${work})
run("cmake --install" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${work}/first)
file(RENAME ${work}/first ${work}/moved) # nothing may remember where it was installed
set(prefix ${work}/moved)

file(GLOB_RECURSE installed RELATIVE ${prefix} ${prefix}/*)
file(GLOB_RECURSE headers RELATIVE ${prefix} ${prefix}/*.h)
if(NOT headers STREQUAL "include/sca.h")
  message(FATAL_ERROR "installed headers are '${headers}', expected include/sca.h alone; all: ${installed}")
endif()
file(GLOB pc ${prefix}/lib*/pkgconfig/sca.pc ${prefix}/lib/*/pkgconfig/sca.pc)
get_filename_component(pc_folder "${pc}" DIRECTORY)
get_filename_component(library_folder "${pc_folder}" DIRECTORY)

set(ENV{PKG_CONFIG_PATH} "${pc_folder}")
run("pkg-config" ${PKG_CONFIG} --cflags --libs sca)
separate_arguments(package UNIX_COMMAND "${output}")
separate_arguments(flags UNIX_COMMAND "${FLAGS}")
run("building with pkg-config" ${COMPILER} -std=c17 -Wall -Wextra -Werror ${flags} ${SOURCE}/docs/example.c ${package} -o ${work}/example)
run("configuring with find_package" ${CMAKE_COMMAND} -S ${SOURCE}/tests/install -B ${work}/stranger -DCMAKE_PREFIX_PATH=${prefix}
    -DEXAMPLE=${SOURCE}/docs/example.c -DCMAKE_C_COMPILER=${COMPILER} "-DCMAKE_C_FLAGS=${FLAGS}")
run("building with find_package" ${CMAKE_COMMAND} --build ${work}/stranger)

set(ENV{LD_LIBRARY_PATH} "${library_folder}:$ENV{LD_LIBRARY_PATH}")
set(arguments ${SOURCE}/docs/demo/model ${SOURCE}/docs/demo/photo.jpg 148 145 300 552 132 296 426 632)
run("the example" ${work}/example ${arguments})
set(first "${output}")
run("the example of the CMake package" ${work}/stranger/example ${arguments})
string(REGEX MATCHALL "[^\n]+\n  log-probability -[0-9.]+, mask in [0-9,]+ - [0-9,]+\n" captions "${first}")
list(LENGTH captions count)
if(NOT count EQUAL 2 OR NOT output STREQUAL first)
  message(FATAL_ERROR "expected twice the same two captions, found:\n${first}and\n${output}")
endif()
run("the installed program" ${prefix}/bin/sca --version)
execute_process(COMMAND ${work}/example nowhere ${SOURCE}/docs/demo/photo.jpg 1 2 3 4 RESULT_VARIABLE result ERROR_VARIABLE noise)
if(NOT result EQUAL 1 OR NOT noise MATCHES "nowhere")
  message(FATAL_ERROR "a missing model: exit status ${result} and '${noise}', expected 1 and a message that names it")
endif()
file(REMOVE_RECURSE ${work})
message(STATUS "installed, moved, found by pkg-config and find_package, run")
