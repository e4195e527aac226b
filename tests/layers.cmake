# layers.cmake - the layers of the source, enforced: who includes whom, what the library may call and export.
#
#   cmake -D SOURCE=DIR [-D ARCHIVES=a.a;b.a -D LIBRARY=libsca.so -D NM=nm] -P tests/layers.cmake
#
# One static library per folder lets the linker enforce most of this; include lines and symbols are the rest.
cmake_minimum_required(VERSION 3.25)
set(failures 0)
function(complain text)
  message(STATUS "${text}")
  math(EXPR n "${failures} + 1")
  set(failures ${n} PARENT_SCOPE)
endfunction()

# ---- include lines --------------------------------------------------------------------------------------------
# folder | folders of ours it may include | headers of libraries it may include (regular expressions)
# A folder may always include itself, sca.h and the C library.
set(outside "yaml\\.h|jansson\\.h|yajl/.*|zlib\\.h|zip\\.h|pcre2\\.h|sentencepiece.*|utf8proc\\.h|turbojpeg\\.h|jpeglib\\.h|jerror\\.h|png\\.h|libexif/.*|libstemmer\\.h|zstd\\.h|cblas\\.h|openblas.*|omp\\.h|hdf5\\.h|mpi\\.h|nccl\\.h|cuda.*|cublas.*|cudnn.*|cairo.*|microhttpd\\.h|dnnl.*")
set(layers
  "src/base|@|yaml\\.h|jansson\\.h|yajl/.*|zlib\\.h"
  "src/core|base@"
  "src/ops|core base@"
  "src/cpu|ops core base@cblas\\.h|omp\\.h"
  "cuda|ops core base@cuda.*|cublas.*|cudnn.*"
  "src/nn|ops core base@"
  "src/model|nn ops core base@pcre2\\.h|sentencepiece.*|utf8proc\\.h|hdf5\\.h|jansson\\.h"
  "data|base@turbojpeg\\.h|jpeglib\\.h|jerror\\.h|png\\.h|libexif/.*|hdf5\\.h|jansson\\.h|zlib\\.h"
  "eval|base@libstemmer\\.h|zstd\\.h|utf8proc\\.h|zlib\\.h|jansson\\.h"
  "train|model nn ops core base data@jansson\\.h"
  "tools|base@cairo.*|png\\.h|turbojpeg\\.h|microhttpd\\.h|jansson\\.h")
# file (a regular expression) | folders it may include besides | libraries besides. Each is named in architecture.md 3.2 or 3.3.
set(exceptions
  "src/ops/ops.c|cpu cuda@"                        # the list of devices
  "eval/evaluate[_a-z]*.[ch]|model nn ops core data train@" # run a split with a model
  "tools/diff.c|ops core@"                         # the one tool that sees inside
  "tools/bench[_a-z]*.[ch]|model nn ops core data train@cblas\\.h" # times what is inside
  "train/comm_mpi.c|@mpi\\.h"
  "train/comm_nccl.c|cuda@nccl\\.h|cuda.*")

# "src/core/arena.c" -> "core"; the folder a file or an include belongs to
function(folder_of path out)
  get_filename_component(folder "${path}" DIRECTORY)
  string(REGEX REPLACE "^src/" "" folder "${folder}")
  string(REGEX REPLACE "/.*" "" folder "${folder}")
  set(${out} "${folder}" PARENT_SCOPE)
endfunction()

function(check_file file folder_path allowed libraries)
  foreach(row IN LISTS exceptions)
    string(REGEX MATCH "^([^|]*)\\|([^@]*)@(.*)$" matched "${row}")
    set(pattern "${CMAKE_MATCH_1}")
    set(folders "${CMAKE_MATCH_2}")
    set(headers "${CMAKE_MATCH_3}")
    if(file MATCHES "^${pattern}$")
      string(APPEND allowed " ${folders}")
      string(APPEND libraries "|${headers}")
    endif()
  endforeach()
  string(REPLACE " " ";" allowed "${allowed}")
  folder_of("${file}" own)
  file(STRINGS "${SOURCE}/${file}" lines REGEX "^[ \t]*#[ \t]*include")
  foreach(line IN LISTS lines)
    if(line MATCHES "include[ \t]*\"([^\"]*)\"")
      set(target "${CMAKE_MATCH_1}")
      if(target STREQUAL "sca.h" OR NOT target MATCHES "/")
        continue()
      endif()
      if(target MATCHES "\\.\\.")
        complain("${file}: includes \"${target}\"; name the folder instead, as in \"base/base.h\"")
      endif()
      folder_of("${target}" there)
      if(NOT there STREQUAL own AND NOT there IN_LIST allowed)
        complain("${file}: includes \"${target}\"; ${folder_path} may include only: ${own} ${allowed}")
      endif()
    elseif(line MATCHES "include[ \t]*<([^>]*)>")
      set(target "${CMAKE_MATCH_1}")
      if(target MATCHES "^(${outside})$" AND NOT target MATCHES "^(${libraries})$")
        complain("${file}: includes <${target}>, a library that ${folder_path} must not know")
      endif()
    endif()
  endforeach()
  set(failures ${failures} PARENT_SCOPE)
endfunction()

set(files_read 0)
foreach(row IN LISTS layers)
  string(REGEX MATCH "^([^|]*)\\|([^@]*)@(.*)$" matched "${row}")
  set(folder_path "${CMAKE_MATCH_1}")
  set(allowed "${CMAKE_MATCH_2}")
  set(libraries "${CMAKE_MATCH_3}")
  file(GLOB_RECURSE files RELATIVE "${SOURCE}" "${SOURCE}/${folder_path}/*.[ch]" "${SOURCE}/${folder_path}/*.cpp"
       "${SOURCE}/${folder_path}/*.def" "${SOURCE}/${folder_path}/*.cu" "${SOURCE}/${folder_path}/*.cuh")
  foreach(file IN LISTS files)
    check_file("${file}" "${folder_path}" "${allowed}" "${libraries}")
    math(EXPR files_read "${files_read} + 1")
  endforeach()
endforeach()
if(files_read LESS 10)
  complain("only ${files_read} source files found below ${SOURCE}: the check itself is broken")
endif()

# The public header stands alone.
file(STRINGS "${SOURCE}/include/sca.h" lines REGEX "^[ \t]*#[ \t]*include[ \t]*\"")
foreach(line IN LISTS lines)
  complain("include/sca.h: ${line}; the public header includes only the C library")
endforeach()

# ---- symbols ------------------------------------------------------------------------------------------------------
# The library returns a status: it does not print, end the program, or read the environment.
set(forbidden "exit|_exit|_Exit|quick_exit|abort|__assert_fail|printf|vprintf|__printf_chk|__vprintf_chk|puts|putchar|perror|stdout|stderr|getenv|secure_getenv|setenv|putenv|system|popen|signal|sigaction|setlocale")
foreach(archive IN LISTS ARCHIVES)
  execute_process(COMMAND ${NM} -A -u "${archive}" OUTPUT_VARIABLE symbols RESULT_VARIABLE result ERROR_VARIABLE noise)
  if(NOT result EQUAL 0)
    complain("${NM} cannot read ${archive}: ${noise}")
  endif()
  string(REPLACE "\n" ";" symbols "${symbols}")
  foreach(line IN LISTS symbols)
    if(line MATCHES "^[^ ]*:([^: ]*):[ ]+[Uw] (${forbidden})(@.*)?$")
      get_filename_component(name "${archive}" NAME)
      complain("${name}(${CMAKE_MATCH_1}) uses ${CMAKE_MATCH_2}(): library code reports through sca_status and the sinks")
    endif()
  endforeach()
endforeach()
if(LIBRARY)
  execute_process(COMMAND ${NM} -D --defined-only "${LIBRARY}" OUTPUT_VARIABLE symbols RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    complain("${NM} cannot read ${LIBRARY}")
  endif()
  string(REPLACE "\n" ";" symbols "${symbols}")
  set(exported 0)
  foreach(line IN LISTS symbols)
    if(line MATCHES "^[0-9a-f]* ?[A-Za-z] ([^@]*)")
      set(symbol "${CMAKE_MATCH_1}")
      math(EXPR exported "${exported} + 1")
      if(NOT symbol MATCHES "^sca_[a-z0-9_]+$")
        complain("${LIBRARY} exports ${symbol}: only sca_* is public")
      endif()
    endif()
  endforeach()
  # Every function that the header declares is there.
  file(READ "${SOURCE}/include/sca.h" header)
  string(REGEX MATCHALL "SCA_API [^;(]*[ *](sca_[a-z0-9_]+)\\(" declared "${header}")
  foreach(line IN LISTS declared)
    string(REGEX MATCH "(sca_[a-z0-9_]+)\\($" matched "${line}")
    if(NOT symbols MATCHES " T ${CMAKE_MATCH_1}(;|@|$)")
      complain("${LIBRARY} does not export ${CMAKE_MATCH_1}, which include/sca.h declares")
    endif()
  endforeach()
  message(STATUS "${exported} symbols exported")
endif()

if(failures GREATER 0)
  message(FATAL_ERROR "${failures} breaches of the layers (the table is in docs/developing.md)")
endif()
message(STATUS "${files_read} files keep the layers")
